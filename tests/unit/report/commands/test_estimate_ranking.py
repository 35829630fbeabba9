import dataclasses

from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.ranking import ranked
from ftbench.plan.gpus import load_gpus
from ftbench.records.prediction import LargestBatch
from ftbench.report.commands.estimate_ranking import (
    decision_lines,
    ranking_json,
    ranking_lines,
    ranking_table,
)
from ftbench.report.commands.prediction_cards import many_cards_table
from ftbench.report.elements.table import ABSENT
from tests.factories import grid, predictions
from tests.unit.analysis.comparisons.test_pareto import single
from tests.unit.estimation.test_ranking import device, ranking
from tests.unit.report.commands.test_estimate import ACCURACY, FOUND

SCORE = EstimatedFigure("accuracy", 0.9, 0.85, 0.95, "95 %")


def decided(ranking, measured=()):
    """Return the decision on the run of `FOUND`, with its devices in this order."""
    of = dataclasses.replace(FOUND, devices=ranking.devices, measured=tuple(measured))
    return "\n".join(decision_lines(of, ranking))


def test_one_row_per_device_with_intervals():
    table = ranking_table(ranking(device("b", 2.0, usd=1.0), device("a", 1.0, usd=1.0)))
    assert [row[0] for row in table.rows] == ["a", "b"]
    (a, _) = table.rows
    assert a[1:3] == ("fits", ABSENT)
    assert a[3] == "1 h 00 min (40 min 00 s to 1 h 30 min)"
    assert a[4:] == ("1.00", "$1.00 ($0.67 to $1.50)")
    assert len(table.numeric) == len(table.columns)


def test_the_lines_name_the_best_and_what_is_tied_with_it():
    found = ranking(device("a", 1.0, usd=1.0), device("b", 1.1, usd=1.0), device("c", 1.0))
    assert decided(found).startswith("Take a, the cheapest for length 512, batch 8, ")
    assert "training examples 25,000, method full: money $1.00 ($0.67 to $1.50)" in decided(found)
    assert "by money: b (" in decided(found)
    lines = "\n".join(ranking_lines(found, SCORE))
    assert "--usd-per-hour c=USD" in lines
    assert "accuracy 0.900 (0.850 to 0.950)" in lines
    assert "list price" not in lines  # all of them were given
    data = ranking_json(found)
    assert data == {
        "by": "cost_usd",
        "order": ["a", "b", "c"],
        "best": "a",
        "not_distinguishable": ["b"],
        "causes": ["uncertain"],
        "perhaps_better": [],
    }


def test_list_prices_are_told_with_their_dates():
    lines = list(ranking_lines(ranked(FOUND), ACCURACY))
    assert not any("list prices" in line for line in lines)
    listed = next(gpu.list_price for gpu in load_gpus().values() if gpu.list_price)
    from ftbench.estimation.prices import Price

    priced = device("a", 1.0, usd=1.0)
    priced = dataclasses.replace(priced, price=Price(1.0, listed))
    assert any(listed.date in line for line in ranking_lines(ranking(priced), ACCURACY))


def test_where_it_fits_nowhere():
    found = ranking(device("a", 1.0, verdict="does not fit"))
    assert "No device" in decided(found)
    assert "on a." in decided(found)
    assert not list(ranking_lines(found, SCORE))


def test_one_device_is_the_decision_without_a_comparison():
    text = decided(ranking(device("a", 1.0, usd=1.0)))
    assert text.startswith("Take a, for length 512")
    assert "money $1.00" in text
    assert "time 1 h 00 min" in text
    assert "cheapest" not in text


def test_the_decision_of_measured_runs_stands_below_that_on_devices():
    runs = [*single(16, 0.5, 10.0), *single(32, 0.9, 20.0)]
    device_line, runs_line = decided(ranking(device("a", 1.0)), runs).splitlines()
    assert device_line.startswith("Take a")
    assert "training examples 16, method full: accuracy 0.500" in runs_line  # of 8 examples
    assert "training examples 32 (0.900) costs more and scores higher" in runs_line


def test_a_device_it_may_not_fit_on_is_taken_with_that_doubt():
    (line,) = decided(ranking(device("a", 1.0, verdict="too close to call"))).splitlines()
    assert "too close to call" in line


def test_a_device_without_a_time_is_not_said_not_to_fit():
    timeless = dataclasses.replace(device("a", 1.0), figures=())
    small = device("small", 1.0, verdict="does not fit")
    line = decided(ranking(timeless, small))
    assert "fits on none" not in line
    assert "on a." in line
    assert "small" not in line


def test_a_price_is_asked_for_only_where_it_would_change_the_order():
    found = ranking(
        device("a", 1.0, usd=1.0), device("b", 1.0), device("c", 1.0, verdict="does not fit")
    )
    (line,) = (one for one in ranking_lines(found, SCORE) if "--usd-per-hour" in one)
    assert "b=USD" in line
    assert "c" not in line.split(".")[0].split(": ")[1].split()
    assert "last" not in line


def test_a_priced_device_it_may_not_fit_on_leaves_the_other_the_best():
    close = device("rtx", 1.0, usd=1.0, verdict="too close to call")
    found = ranking(close, device("l4", 1.0))
    assert decided(found).startswith("Take l4, the fastest for ")
    lines = "\n".join(ranking_lines(found, SCORE))
    assert "--usd-per-hour l4=USD" in lines


def test_many_cards_are_rows():
    of, gpus = grid(), list(load_gpus().values())[:6]
    largest = tuple(
        LargestBatch(
            cell_id=of.cells[0].cell_id,
            gpu=gpus[0].name,
            max_length=length,
            certain=batch,
            possible=batch,
            reserved=None,
        )
        for length, batch in ((16, 80), (32, 40))
    )
    table = many_cards_table(of, predictions(of, *(g.name for g in gpus), largest=largest), gpus)
    assert [row[0] for row in table.rows] == [gpu.name for gpu in gpus]
    cells = len(of.cells)
    assert table.rows[0][2:] == (f"{cells} of {cells}", ABSENT, ABSENT, "40 to 80")
    assert table.rows[1][-1] == ABSENT


def test_a_far_cheaper_device_that_it_may_not_fit_on_is_named_as_that():
    close = device("b", 1.0, usd=1.0, verdict="too close to call")
    text = decided(ranking(device("a", 10.0, usd=1.0), close))
    assert text.startswith("Take a, the cheapest of those that it fits on for ")
    assert "b would be better, but whether it fits there is too close to call" in text
    assert "not distinguishable" not in text
