"""Predictions as tables, as a chart and as JSON."""

import json

import pytest

from ftbench.plan.programs import Program, program_grid
from ftbench.records.prediction import (
    GrowingPart,
    Growth,
    LargestBatch,
    LargestValue,
    Refused,
    RefusedCards,
    Share,
)
from ftbench.report.commands.prediction import (
    CHART_HEIGHT,
    CHART_WIDTH,
    explanation_tables,
    figure_text,
    growth_explained,
    growth_notes,
    largest_table,
    largest_values_table,
    moment_text,
    notes_lines,
    predictions_json,
    predictions_table,
    timeline_chart,
)
from ftbench.report.elements.table import ABSENT
from tests.factories import (
    MIB,
    composition,
    figure,
    grid,
    predicted_card,
    predicted_cell,
    predictions,
)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (figure(90), "90.0 MiB"),
        (figure(120, 116, 124), "120 MiB (116 MiB to 124 MiB)"),
        (figure(120, 120, 124), "120 MiB (120 MiB to 124 MiB)"),
        (figure(5000, 4999, 5001), "4.88 GiB"),  # an interval that nobody would see
    ],
)
def test_a_figure_has_its_interval_where_it_shows(of, text):
    assert figure_text(of) == text


def test_a_table_of_cells_and_cards():
    of = grid()
    table = predictions_table(of, predictions(of, "t4", "h100"), ["t4", "h100"])
    assert table.columns == ("length", "batch", "training examples", "tensors", "t4", "h100")
    assert len(table.numeric) == len(table.columns)
    reserved = "120 MiB (116 MiB to 124 MiB) fits"
    assert table.rows[0] == ("16", "4", "16", "90.0 MiB", reserved, reserved)
    assert [row[:2] for row in table.rows] == [("16", "4"), ("16", "8"), ("32", "4"), ("32", "8")]


@pytest.mark.parametrize(
    ("verdict", "word"), [("fits", "fits"), ("does not fit", "no"), ("too close to call", "close")]
)
def test_verdicts_in_a_word(verdict, word):
    of = grid()
    cards = (predicted_card("t4", verdict=verdict),)
    answer = predictions(of, cells=[predicted_cell(c.cell_id, cards=cards) for c in of.cells])
    table = predictions_table(of, answer, ["t4"])
    assert {row[-1].split()[-1] for row in table.rows} == {word}


def test_a_refused_cell_has_the_first_line_of_its_reason():
    of = grid()
    one, *others = of.cells
    answer = predictions(
        of,
        cells=[predicted_cell(cell.cell_id, "t4") for cell in others],
        refused=[Refused(cell_id=one.cell_id, reason="training.optim: not covered\n  got: 'x'")],
    )
    first = predictions_table(of, answer, ["t4"]).rows[0]
    assert first == ("16", "4", "16", "not predicted: training.optim: not covered", ABSENT)


def test_a_cell_without_a_word_and_a_card_without_a_figure_are_absent():
    of = grid()
    answer = predictions(of, cells=[predicted_cell(of.cells[1].cell_id, "t4")])
    rows = predictions_table(of, answer, ["t4", "l4"]).rows
    assert rows[0][-3:] == ("not predicted: ", ABSENT, ABSENT)
    assert rows[1][-1] == ABSENT


# The largest batch


def largest(cell, gpu, certain, possible=None):
    reserved = figure(100) if certain else None
    possible = certain if possible is None else possible
    return LargestBatch(
        cell_id=cell.cell_id,
        gpu=gpu,
        max_length=cell.max_length,
        certain=certain,
        possible=possible,
        reserved=reserved,
    )


def test_a_row_a_length_and_a_column_a_card():
    of = grid()
    short, long = of.cells[0], of.cells[2]
    answer = predictions(
        of,
        largest=(
            largest(short, "t4", 64, 70),
            largest(short, "h100", 512),
            largest(long, "t4", 0),
        ),
    )
    table = largest_table(of, answer, ["t4", "h100"])
    assert table.columns == ("length", "t4", "h100")
    assert table.rows == (("16", "64 (perhaps 70)", "512"), ("32", "0", ABSENT))


def test_what_else_tells_workloads_apart_has_a_column():
    block = {
        "max_length": [16],
        "per_device_train_batch_size": [4],
        "train_size": [8, 16],
        "padding": ["max_length", "longest"],
        "seed": [1, 2],
    }
    of = grid(grid=[block])
    by = {cell.padding: cell for cell in of.cells}
    answer = predictions(
        of,
        largest=(largest(by["max_length"], "t4", 64), largest(by["longest"], "t4", 65)),
    )
    table = largest_table(of, answer, ["t4"])
    assert table.columns == ("length", "padding", "t4")
    assert table.rows == (("16", "max_length", "64"), ("16", "longest", "65"))


# One cell


EXPLAINED = predicted_cell("x", "t4", composition=composition())


def test_figures_of_one_cell_to_the_byte():
    figures, *_ = explanation_tables(EXPLAINED)
    assert figures.columns == ("figure", "card", "bytes", "low", "high", "certainty")
    assert [row[:2] for row in figures.rows] == [
        ("tensors", ABSENT),
        *((name, "t4") for name in ("requested", "allocated", "reserved", "process")),
    ]
    assert figures.rows[0][2:] == ("94,371,840", "94,371,840", "94,371,840", "exact")
    assert figures.rows[3][2:] == ("125,829,120", "121,634,816", "130,023,424", "simulated")


def test_what_a_peak_consists_of_in_shares():
    _, roles, modules, operators = explanation_tables(EXPLAINED)
    assert roles.rows == (("parameters", "60.0 MiB", "66.7%"), ("activations", "30.0 MiB", "33.3%"))
    assert modules.rows == (("layer", "90.0 MiB", "100.0%"),)
    assert operators.columns[0] == "operator"
    for table in (roles, modules, operators):
        assert len(table.columns) == len(table.numeric) == len(table.rows[0])


def test_lines_of_code_are_shown_if_they_are_known():
    lines = (Share(name="loop.py:3", nbytes=45 * MIB), Share(name="loop.py:7", nbytes=45 * MIB))
    explained = predicted_cell("a", composition=composition(lines=lines))
    *_, table = explanation_tables(explained)
    assert table.columns[0] == "line"
    assert table.rows == (("loop.py:3", "45.0 MiB", "50.0%"), ("loop.py:7", "45.0 MiB", "50.0%"))


def test_the_moment_as_a_sentence():
    said = moment_text(composition())
    assert said == "The peak is reached in the backward phase of step 2, by aten::mm of layer."
    outside = composition().moment.model_copy(update={"module": ""})
    assert moment_text(composition(moment=outside)).endswith("by aten::mm.")


# The chart


def chart(values, phases=((0, "setup"),), **options):
    return timeline_chart(composition(timeline=tuple(enumerate(values)), phases=phases), **options)


def bars(lines):
    return [line.partition("│")[2] for line in lines[:-1]]


def test_a_chart_is_of_one_height_and_of_the_events_width():
    lines = chart([MIB * n for n in range(1, 11)])
    assert len(lines) == CHART_HEIGHT + 1
    assert {len(line) for line in bars(lines)} == {10}
    assert lines[0].startswith("10.0 MiB │")
    assert lines[CHART_HEIGHT - 1].startswith("     0 B │")
    assert {line.index("│") for line in lines[:-1]} == {len("10.0 MiB ")}


@pytest.mark.parametrize(("events", "width"), [(240, CHART_WIDTH), (50, 50), (101, CHART_WIDTH)])
def test_a_chart_is_no_wider_than_there_is_room(events, width):
    assert {len(line) for line in bars(chart([MIB] * events))} == {width}


def test_bars_are_as_high_as_the_memory():
    top, *rest = bars(chart([0, 4 * MIB, 8 * MIB]))
    assert top == "  █"
    assert rest[-1] == " ██"
    assert [line[1] for line in (top, *rest)] == [" "] * 4 + ["█"] * 4
    assert bars(chart([MIB, 16 * MIB]))[-1] == "▄█"  # half of an eighth


def test_the_highest_of_the_events_that_share_a_bar_is_what_it_shows():
    values = [MIB] * 300
    values[157] = 8 * MIB
    top = bars(chart(values))[0]
    assert top.count("█") == 1
    assert top.index("█") == 157 * CHART_WIDTH // 300


def test_phases_stand_where_they_begin_as_far_as_there_is_room():
    phases = (
        (0, "setup"),
        (4, "step 0"),
        (20, "step 1"),
        (22, "step 2"),
        (60, "evaluation"),
        (99, "the end"),
    )
    line = chart([MIB] * 100, phases)[-1]
    text = line[len("1.0 MiB ") + 1 :]
    assert text == "    step 0" + " " * 10 + "step 1" + " " * 34 + "evaluation"


def test_a_chart_of_nothing():
    assert chart([]) == []


# JSON


def test_predictions_as_json():
    of = grid()
    one, *others = of.cells
    answer = predictions(
        of,
        cells=[predicted_cell(cell.cell_id, "t4") for cell in others],
        refused=[Refused(cell_id=one.cell_id, reason="no")],
        largest=(largest(others[0], "t4", 8),),
        notes=("a note",),
    )
    data = json.loads(json.dumps(predictions_json(of, answer, "smoke")))
    assert data["profile"] == "smoke"
    assert data["versions"] == {"torch": "2.13.0"}
    assert data["notes"] == ["a note"]
    assert data["refused"] == [{"cell_id": one.cell_id, "reason": "no"}]
    assert [cell["cell_id"] for cell in data["cells"]] == [cell.cell_id for cell in others]
    first = data["cells"][0]
    assert (first["max_length"], first["per_device_train_batch_size"]) == (16, 8)
    assert first["tensors"]["value_bytes"] == 90 * MIB
    assert first["cards"][0]["reserved"]["high_bytes"] == 124 * MIB
    assert data["largest_batch"][0]["certain"] == 8


# Programs


def program(*assignments):
    return program_grid(Program(file="train.py", factory="make_step"), assignments)


def test_a_program_s_arguments_are_columns_under_their_own_names():
    of = program("max_length=[64, 128]", "batch=(1, 2)", "on=[true]")
    table = predictions_table(of, predictions(of, "t4"), ["t4"])
    assert table.columns == ("max_length", "batch", "on", "tensors", "t4")
    assert [row[:4] for row in table.rows] == [
        ("64", "[1, 2]", "True", "90.0 MiB"),
        ("128", "[1, 2]", "True", "90.0 MiB"),
    ]


def test_the_largest_values_have_a_row_for_each_of_the_other_arguments():
    of = program("batch=[4]", "length=[64, 128]")
    short, long = (cell.cell_id for cell in of.cells)
    largest = [
        LargestValue(cell_id=name, gpu=gpu, argument="batch", certain=certain, possible=possible)
        for name, gpu, certain, possible in (
            (short, "t4", 9, 9),
            (short, "l4", 20, 22),
            (long, "l4", 10, 10),
        )
    ]
    found = predictions(of).model_copy(update={"largest_values": tuple(largest)})
    table = largest_values_table(of, found, ["t4", "l4"])
    assert table.columns == ("length", "t4", "l4")
    assert table.rows == (("64", "9", "20 (perhaps 22)"), ("128", ABSENT, "10"))


def test_refused_cards_are_told_once_and_versions_last():
    of = program("batch=[1, 2]")
    refused = [
        RefusedCards(cell_id=cell.cell_id, gpus=("t4", "v100"), reason="too old")
        for cell in of.cells
    ]
    found = predictions(of).model_copy(
        update={
            "refused_cards": tuple(refused),
            "notes": ("one",),
            "versions": (("torch", "2.13.0"), ("transformers", "5.23.0")),
        }
    )
    first, note, versions = notes_lines(found)
    assert ("t4, v100" in first, "too old" in first, note) == (True, True, "one")
    assert all(name in versions for name in ("torch 2.13.0", "transformers 5.23.0"))


def test_a_program_s_json_keeps_arguments_apart_from_figures():
    of = program("tensors=[1, 2]", "shape=[[3, 4]]")
    data = json.loads(json.dumps(predictions_json(of, predictions(of), "train.py:make_step")))
    assert data["program"] == "train.py:make_step"
    assert [cell["arguments"] for cell in data["cells"]] == [
        {"tensors": 1, "shape": [3, 4]},
        {"tensors": 2, "shape": [3, 4]},
    ]
    assert data["cells"][0]["tensors"]["certainty"] == "exact"


def test_growth_is_told_for_each_cell_that_has_it():
    of = program("batch=[4, 8]")
    part = GrowingPart(role="activations", module="m", operator="", source="a.py:3", nbytes=8)
    grown = predicted_cell(of.cells[1].cell_id, growth=Growth(nbytes=8, steps=1, parts=(part,)))
    answer = predictions(of, cells=(predicted_cell(of.cells[0].cell_id), grown))
    (line,) = growth_notes(of, answer)
    assert line.startswith("batch 8: steps keep ever more memory: 8 B more")
    alone = program()
    own = grown.model_copy(update={"cell_id": alone.cells[0].cell_id})
    assert next(growth_notes(alone, predictions(alone, cells=(own,)))).startswith("steps keep")
    assert list(growth_explained(grown))[-1].endswith("activations, m (a.py:3)")
    assert list(growth_explained(answer.cells[0])) == []
