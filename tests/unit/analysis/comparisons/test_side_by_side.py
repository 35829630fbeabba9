import pandas as pd
import pytest

from ftbench.analysis.comparisons.side_by_side import Side, side_by_side
from ftbench.plan.grid import expand
from ftbench.records.record import Failure
from tests.factories import (
    cell,
    data_source,
    device,
    environment,
    measurement,
    model_source,
    profile,
    record,
)

LENGTHS = (16, 32, 64, 128, 256, 512)


def side(records, name="x", env=None, **of):
    env = env or environment()
    moved = [one.model_copy(update={"environment_id": env.environment_id}) for one in records]
    return Side(name, moved, profile(**of), {env.environment_id: env})


def runs(length=16, total=100.0, accuracy=0.7, count=3, rss=2**30, **axes):
    """Return replicates of a cell whose times spread by some 1 %."""
    of = cell(max_length=length, **axes)
    return [
        record(
            of,
            replicate=n,
            measurement=measurement(
                total_s=total * (1 + 0.01 * (n - 1)),
                eval_accuracy=accuracy + 0.001 * (n - 1),
                memory={"peak_rss_bytes": rss},
            ),
        )
        for n in range(count)
    ]


def grid(factor=1.0, lengths=LENGTHS, **options):
    return [one for n in lengths for one in runs(n, 10.0 * n * factor, **options)]


def test_a_planted_ratio_comes_back():
    found = side_by_side(side(grid()), side(grid(1.5)))
    assert len(found.compared) == 6
    assert list(found.table["total_s_ratio"]) == pytest.approx([1.5] * 6)
    assert set(found.table["total_s_verdict"]) == {"more"}
    assert found.table["total_s_ratio_low"].max() < 1.5 < found.table["total_s_ratio_high"].min()
    median = found.medians["total_s"]
    assert (median.value, median.verdict) == (pytest.approx(1.5), "more")
    assert list(found.table["total_s_a"]) == pytest.approx([10.0 * n for n in LENGTHS])
    assert list(found.table["runs_b"]) == [3] * 6


def test_the_same_twice_is_no_difference():
    found = side_by_side(side(grid()), side(grid()))
    assert found.same_cells
    assert found.environment == found.settings == ()
    for name in ("total_s", "step_median_s", "peak_rss_bytes"):
        assert list(found.table[f"{name}_ratio"]) == pytest.approx([1.0] * 6)
        assert set(found.table[f"{name}_verdict"]) == {"not distinguishable"}
        assert found.medians[name].verdict == "not distinguishable"
    assert list(found.table["eval_accuracy_difference"]) == pytest.approx([0.0] * 6)
    assert found.gain.verdict == "not distinguishable"
    assert found.apart.empty


def test_a_difference_within_noise_is_not_told_apart():
    found = side_by_side(side(runs(total=100.0)), side(runs(total=100.5)))
    (row,) = found.table.to_dict("records")
    assert row["total_s_verdict"] == "not distinguishable"
    assert row["total_s_ratio_low"] < 1 < row["total_s_ratio_high"]


def test_one_run_a_side_has_no_interval():
    found = side_by_side(side(runs(count=1)), side(runs(count=1, total=200.0)))
    (row,) = found.table.to_dict("records")
    assert (row["total_s_ratio"], row["total_s_verdict"]) == (pytest.approx(2.0), "not known")
    assert pd.isna(row["total_s_ratio_low"])
    assert found.medians["total_s"].verdict == "not known"


def test_accuracy_is_a_difference():
    found = side_by_side(side(grid(accuracy=0.6)), side(grid(accuracy=0.9)))
    assert list(found.table["eval_accuracy_difference"]) == pytest.approx([0.3] * 6)
    assert found.gain.value == pytest.approx(0.3)
    assert found.gain.verdict == "not distinguishable"  # eight evaluation documents
    assert "eval_accuracy_ratio" not in found.table


# What differs


def test_environments():
    one = environment(
        packages={"torch": "2.13.0", "old": "1"}, device=device(uuid="a"), git_commit="c1"
    )
    two = environment(
        packages={"torch": "2.14.0", "new": "2"},
        device=device(uuid="b"),
        git_commit="c1",
        cores=4,
        variables={"MALLOC_ARENA_MAX": "2"},
    )
    found = side_by_side(side(runs(), env=one), side(runs(), env=two))
    assert {d.what: (d.a, d.b) for d in found.environment} == {
        "cores": ((2,), (4,)),
        "variables.MALLOC_ARENA_MAX": ((), ("2",)),
        "packages.torch": (("2.13.0",), ("2.14.0",)),
        "packages.old": (("1",), ()),
        "packages.new": ((), ("2",)),
    }
    assert found.same_cells


def test_an_environment_that_nothing_was_measured_under_is_none():
    mine, other = environment(), environment(cores=64)
    one = side(runs(), env=mine)
    both = Side("y", one.records, one.profile, {e.environment_id: e for e in (mine, other)})
    assert side_by_side(one, both).environment == ()


def test_another_model_is_paired_on_the_rest():
    deeper = model_source(config=(("num_hidden_layers", 12),))
    records = [
        record(
            expand(profile(), deeper, data_source()).cells[n], measurement=measurement(total_s=30.0)
        )
        for n in range(4)
    ]
    plain = [record(one) for one in expand(profile(), model_source(), data_source()).cells]
    found = side_by_side(side(plain), side(records))
    assert [(d.what, d.a, d.b) for d in found.settings] == [("config.num_hidden_layers", (), (12,))]
    assert not found.same_cells
    assert "config.num_hidden_layers" not in found.axes
    assert list(found.compared["total_s_ratio"]) == pytest.approx([3.0] * 4)


def test_a_setting_that_is_an_axis_of_one_side_stays_an_axis():
    a = side([*runs(weight_decay=0.1), *runs(weight_decay=0.2)])
    found = side_by_side(a, side(runs(weight_decay=0.2)))
    assert found.settings == ()
    assert list(found.compared["weight_decay"]) == [0.2]
    assert list(found.apart["weight_decay"]) == [0.1]


def test_a_setting_that_one_side_leaves_to_its_default():
    a = side([*runs(), *runs(gradient_accumulation_steps=2)])
    found = side_by_side(a, side(runs(gradient_accumulation_steps=2)))
    assert list(found.table["gradient_accumulation_steps"]) == [1, 2]
    assert len(found.compared) == 1


def test_how_they_were_run():
    found = side_by_side(side(runs()), side(runs(), run={"repeats": 3}))
    assert [(d.what, d.a, d.b) for d in found.settings] == [("run.repeats", (1,), (3,))]
    assert found.same_cells  # the work is the same


def test_seeds_are_no_difference():
    a, b = ([record(cell(seed=seed))] for seed in (1, 2))
    found = side_by_side(side(a), side(b))
    assert found.settings == ()
    assert len(found.compared) == 1


# What cannot be compared


def test_cells_of_one_side_only():
    found = side_by_side(side(grid(lengths=(16, 32))), side(grid(lengths=(32, 64))))
    assert list(found.compared["max_length"]) == [32]
    rows = found.apart.set_index("max_length")
    assert (rows.loc[16, "status_a"], rows.loc[16, "status_b"]) == ("ok", "not run")
    assert (rows.loc[64, "status_a"], rows.loc[64, "status_b"]) == ("not run", "ok")


def test_failed_and_untrusted_runs_are_left_out():
    failed = record(
        cell(max_length=32), status="oom", measurement=None, failure=Failure(message="m")
    )
    untrusted = record(cell(max_length=64), measurement=measurement(eval_accuracy=1.5))
    found = side_by_side(side(grid(lengths=(16, 32, 64))), side([*runs(16), failed, untrusted]))
    assert list(found.compared["max_length"]) == [16]
    assert list(found.apart["status_b"]) == ["oom", "untrusted"]
    assert set(found.medians) == {"step_median_s", "total_s", "peak_rss_bytes"}


def test_all_failed():
    failed = record(status="oom", measurement=None, failure=Failure(message="m"))
    found = side_by_side(side([failed]), side([failed]))
    assert found.compared.empty
    assert found.medians == {}
    assert found.gain is None


def test_a_card_and_a_processor_share_the_resident_set():
    on_card = record(
        measurement=measurement(memory={"peak_rss_bytes": 2**31, "peak_allocated_bytes": 2**20})
    )
    found = side_by_side(side([record()]), side([on_card]))
    assert found.costs[-1] == "peak_rss_bytes"
    assert found.table["peak_rss_bytes_ratio"].iloc[0] == pytest.approx(2.0)
    assert side_by_side(side([on_card]), side([on_card])).costs[-1] == "peak_allocated_bytes"


def test_no_accuracy_on_one_side():
    none = record(measurement=measurement(eval_accuracy=None))
    found = side_by_side(side([record()]), side([none]))
    assert found.gain is None
    assert found.table["eval_accuracy_verdict"].isna().all()
