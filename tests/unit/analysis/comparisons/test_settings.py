import pandas as pd
import pytest

from ftbench.analysis.comparisons.settings import choices
from ftbench.analysis.tables.cells_table import cells_table
from tests.factories import cell, measurement, record

AXES = ["max_length", "per_device_train_batch_size", "train_size", "malloc"]


def rows(malloc, length=16, replicates=1, **figures):
    """Return the runs of one cell as a table of cells has them."""
    given = {"eval_accuracy": 0.8, "total_s": 100.0, "step_median_s": 1.0, "rss": 2**30} | figures
    memory = {"peak_rss_bytes": given.pop("rss")}
    records = [
        record(
            cell(max_length=length, malloc=malloc),
            replicate=n,
            measurement=measurement(memory=memory, **given),
        )
        for n in range(replicates)
    ]
    return cells_table(records).assign(malloc=malloc, max_length=length)


def compared(*tables, axes=AXES):
    return choices(pd.concat(tables, ignore_index=True), axes)


def test_costs_are_those_of_the_chosen_over_the_first():
    (found,) = compared(
        rows("default", total_s=200.0),
        rows("keep", total_s=100.0, rss=3 * 2**29, eval_accuracy=0.7),
    )
    assert (found.axis, found.chosen, found.other) == ("malloc", "keep", "default")
    assert found.ratios["total_s"].value == pytest.approx(0.5)
    assert found.ratios["peak_rss_bytes"].value == pytest.approx(1.5)
    assert found.gain.value == pytest.approx(-0.1)


def test_pairs_agree_in_all_else_and_come_in_order():
    (found,) = compared(
        *(rows("default", n, total_s=n * 10.0) for n in (64, 16, 128)),
        *(rows("keep", n, total_s=n * 5.0 if n < 64 else n * 20.0) for n in (16, 32, 64)),
    )
    assert [pair.fixed["max_length"] for pair in found.pairs] == [16, 64]
    assert "malloc" not in found.pairs[0].fixed
    each = [pair.ratios["total_s"].value for pair in found.pairs]
    assert each == pytest.approx([0.5, 2.0])
    assert found.ratios["total_s"].value == pytest.approx(1.0)  # the geometric mean


def test_runs_that_were_repeated_give_an_interval():
    times = pd.concat([rows("default", replicates=3), rows("keep", replicates=3)])
    noisy = times.assign(total_s=[100.0, 101.0, 102.0, 50.0, 51.0, 52.0])
    (found,) = compared(noisy)
    assert found.ratios["total_s"].verdict == "less"
    (once,) = compared(rows("default"), rows("keep"))
    assert once.ratios["total_s"].verdict == "not known"


@pytest.mark.parametrize("values", [(False, True), ("eager", "sdpa")])
def test_yes_and_no_and_words_are_choices(values):
    tables = [rows("default").assign(asked=value) for value in values]
    (found,) = compared(*tables, axes=[*AXES, "asked"])
    assert (found.other, found.chosen) == values


@pytest.mark.parametrize(
    ("axis", "values"),
    [("max_length", (16, 32)), ("method", ("full", "head")), ("environment_id", ("a", "b"))],
)
def test_numbers_methods_and_environments_are_none(axis, values):
    tables = [rows("default").assign(**{axis: value}) for value in values]
    assert compared(*tables, axes=[*dict.fromkeys([*AXES, axis])]) == []


def test_without_a_common_cell_there_is_nothing_to_say():
    assert compared(rows("default", 16), rows("keep", 32)) == []


def test_without_a_finished_run_there_is_nothing_to_say():
    failed = rows("default").assign(status="oom")
    assert compared(failed, failed.assign(malloc="keep")) == []


def test_numbers_that_a_table_has_as_texts_are_numbers():
    """Where one block of a grid leaves a setting to its default, the others' numbers are texts."""
    accumulated = [rows("default").assign(accumulated=text) for text in ("2", "16", "default")]
    assert compared(*accumulated, axes=[*AXES, "accumulated"]) == []
    tables = [
        rows(malloc, 16).assign(max_length=text)
        for malloc in ("default", "keep")
        for text in ("64", "128")
    ]
    (found,) = compared(*tables)
    assert [pair.fixed["max_length"] for pair in found.pairs] == ["64", "128"]


def test_what_is_left_to_its_default_is_what_others_are_beside():
    tables = [rows("default").assign(checkpointing=text) for text in ("True", "default")]
    (found,) = compared(*tables, axes=[*AXES, "checkpointing"])
    assert (found.chosen, found.other) == ("True", "default")


def test_resident_memory_is_compared_beside_the_cards():
    on_card = {"peak_allocated_bytes": 2**30}
    (found,) = compared(
        rows("default").assign(**on_card), rows("keep", rss=2**31).assign(**on_card)
    )
    assert found.ratios["peak_allocated_bytes"].value == pytest.approx(1.0)
    assert found.ratios["peak_rss_bytes"].value == pytest.approx(2.0)
