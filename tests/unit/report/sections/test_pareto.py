import pytest

from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.records.record import Failure
from ftbench.report.sections.pareto import buying_note, buying_section
from tests.factories import cell, evaluated, measurement, record


def runs(train_size, accuracies, cost, **axes):
    one = cell(train_size=train_size, **axes)
    return [
        record(one, replicate=n, measurement=measurement(eval_accuracy=a, total_s=cost + n))
        for n, a in enumerate(accuracies)
    ]


GOOD = [
    *runs(16, (0.60, 0.61, 0.62), 10.0),
    *runs(32, (0.80, 0.81, 0.82), 20.0),
    *runs(64, (0.70, 0.71, 0.72), 3600.0),
    *runs(16, (0.60, 0.61, 0.63), 15.0, max_length=32),
]


def section(records, eval_size=None, **options):
    table = evaluated(cells_table(records), eval_size)
    return buying_section(table, varying_axes(records), **options)


def table(found, title):
    (one,) = (table for table in found.tables if title in table.title)
    assert {len(row) for row in one.rows} == {len(one.columns)} == {len(one.numeric)}
    return one


def test_the_front_is_said_and_shown():
    found = section(GOOD, eval_size=10_000)
    assert found.heading == "What to buy"
    assert found.paragraphs[0] == (
        "By total time, 2 of 4 cells are worth the cost, from accuracy 0.610 for 11.0 s to 0.810 for 21.0 s;"
        " 1 more is within noise of a cheaper one."
    )
    front = table(found, "against total time")
    assert front.columns[:3] == ("length", "training examples", "seeds")
    assert [row[:2] for row in front.rows] == [("16", "16"), ("32", "16"), ("16", "32")]
    assert [row[-1] for row in front.rows] == [
        "front",
        "not distinguishable",
        "front, lead distinguishable",
    ]


def test_the_cheapest_cell_for_an_accuracy():
    rows = table(section(GOOD, eval_size=10_000), "cheapest cell").rows
    assert [row[0] for row in rows] == ["0.65", "0.70", "0.75", "0.80"]
    assert rows[0][1:3] == ("21.0 s", "length 16, training examples 32")
    assert rows[-1][2].endswith("(perhaps)")  # 0.81, whose interval goes below 0.80


def test_the_next_doubling_is_said_and_shown():
    found = section(GOOD, eval_size=10_000)
    said = next(text for text in found.paragraphs if "next doubling" in text)
    assert said.startswith(
        "The next doubling of training examples (measured from 16 to 32 at length 16, batch 4) is the only one"
        " whose gain in accuracy is distinguishable from none: +0.200"
    )
    rows = table(found, "next doubling").rows
    assert [(row[0], row[-1]) for row in rows] == [
        ("training examples", "distinguishable"),
        ("length", "not distinguishable"),
    ]


def test_of_several_gains_that_are_told_apart_the_best_is_said_with_their_number():
    longer = runs(16, (0.69, 0.70, 0.71), 15.0, max_length=32)
    found = section([*GOOD[:6], *longer], eval_size=10**6)
    said = next(text for text in found.paragraphs if "next doubling" in text)
    assert "buys most accuracy for its time, of the 2 whose gain is distinguishable" in said


def test_a_single_step_is_said_to_be_worth_it_or_not():
    said = next(text for text in section(GOOD[:6]).paragraphs if "next doubling" in text)
    assert "at length 16, batch 4) is worth this: +0.200" in said


def test_a_gain_within_noise_is_not_said():
    found = section([*runs(16, (0.6,), 10.0), *runs(32, (0.65,), 20.0)], eval_size=50)
    text = " ".join(found.paragraphs)
    assert "no cell is known to be worth more than the cheapest" in text
    assert (
        "Of the next doublings that were measured (training examples from 16 to 32 at length 16, batch 4), none has"
        " a gain in accuracy that is distinguishable from none." in text
    )
    assert "how far another seed's score would lie is not known" in text


def test_several_seeds_are_not_called_one():
    assert "how far another seed's score would lie" not in " ".join(
        section(GOOD, eval_size=50).paragraphs
    )


def test_a_front_of_one_cell_is_said_and_has_no_table():
    found = section([*runs(16, (0.6,), 10.0), *runs(32, (0.5,), 20.0)], eval_size=10_000)
    assert "no cell is known to be worth more than the cheapest" in found.paragraphs[0]
    assert not any("The front" in one.title for one in found.tables)


def test_the_note_says_how_many_documents():
    assert "standard error over 1,234 evaluation examples" in buying_note("accuracy", 1234)


def test_money_stands_beside_time():
    front = table(section(GOOD, eval_size=10_000, usd_per_hour=360.0), "against total time")
    assert front.rows[0][-3] == "11.0 s (1.10 USD)"


@pytest.mark.parametrize(
    "records",
    [
        GOOD[:1],
        GOOD[:3],
        [record(status="oom", measurement=None, failure=Failure(message="m"))],
        [record(cell(max_length=n), measurement=measurement(eval_accuracy=None)) for n in (16, 32)],
    ],
    ids=["a single run", "a single cell", "all failed", "no accuracy"],
)
def test_nothing_to_buy(records):
    assert section(records, eval_size=8) is None


def methods():
    return [
        *runs(16, (0.80, 0.81, 0.82), 20.0, method="full", learning_rate=2e-5),
        *runs(16, (0.79, 0.80, 0.81), 10.0, method="lora", learning_rate=1e-4),
        *runs(32, (0.85, 0.86, 0.87), 40.0, method="full", learning_rate=2e-5),
        *runs(32, (0.83, 0.84, 0.85), 20.0, method="lora", learning_rate=1e-4),
    ]


def test_full_beside_lora():
    found = section(methods(), eval_size=500)
    said = next(text for text in found.paragraphs if text.startswith("Full fine-tuning costs"))
    assert "over lora in 2 pairs of cells (the geometric mean of their ratios): 1.93x" in said
    assert ": 1.93x (1.77x to 2.1" in said
    assert "in accuracy +0.015" in said
    assert said.endswith("(not distinguishable).")
    rows = table(found, "Full fine-tuning over lora").rows
    assert [row[0] for row in rows] == ["16", "32", "all: mean"]
    assert rows[0][1:3] == ("2e-05", "0.0001")


def test_pairs_of_single_runs_have_no_interval_and_say_so():
    found = section([one for one in methods() if one.replicate == 0], eval_size=500)
    said = next(text for text in found.paragraphs if text.startswith("Full fine-tuning costs"))
    assert "2.00x the total time (no interval: too few runs), " in said


def test_six_pairs_are_told_by_their_median():
    records = [
        one
        for size in (16, 32, 64, 128, 256, 512)
        for method, rate, cost in (("full", 2e-5, 20.0), ("lora", 1e-4, 10.0))
        for one in runs(size, (0.8, 0.8), cost, method=method, learning_rate=rate)
    ]
    found = section(records, eval_size=500)
    said = next(text for text in found.paragraphs if text.startswith("Full fine-tuning costs"))
    assert "in 6 pairs of cells (the median of their ratios): 1.95x" in said
    last = table(found, "Full fine-tuning over lora").rows[-1]
    assert last[0] == "all: median, of the score the mean"


def test_without_accuracy_methods_have_their_costs():
    absent = [
        one.model_copy(update={"measurement": one.measurement.model_copy(update={"scores": ()})})
        for one in methods()
    ]
    found = section(absent, eval_size=500)
    assert len(found.paragraphs) == len(found.tables) == 1
    assert "in accuracy" not in found.paragraphs[0]
