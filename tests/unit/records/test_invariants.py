"""Each invariant, broken once on purpose: exactly the figures concerned are untrusted, with the reason."""

import pandas as pd
import pytest

from ftbench.analysis.tables.cells_table import cells_table
from ftbench.analysis.tables.memory_table import memory_table
from ftbench.records.invariants import (
    CLOCK_SLACK,
    CLOCK_SLACK_S,
    DEVICE_SLACK,
    broken_invariants,
)
from ftbench.records.readings import Memory, Phase, Sampling
from tests.factories import device, environment, measurement, record

GIB = 2**30
CARD = device(kind="cuda", uuid="GPU-1", total_memory_bytes=16 * GIB)
LEDGER = {
    "peak_rss_bytes": GIB,
    "peak_allocated_bytes": 2 * GIB,
    "peak_reserved_bytes": 3 * GIB,
    "peak_process_bytes": 4 * GIB,
    "peak_device_bytes": 5 * GIB,
    "context_bytes": GIB,
}
SAMPLING = Sampling(period_s=0.05, samples=100, cpu_s=0.01, cpu_share=0.001, device_uuid="GPU-1")


def on_card(sampling=None, **ledger):
    """Return a measurement on a card whose readings are nested as they should be."""
    return measurement(
        memory=LEDGER | ledger,
        device=CARD,
        model_device="GPU-1",
        sampling=SAMPLING.model_copy(update=sampling or {}),
    )


def broken(measured, **changes):
    return broken_invariants(record(measurement=measured, **changes), environment())


def test_a_whole_record_breaks_nothing():
    assert broken(on_card()) == {}
    assert broken(measurement()) == {}


@pytest.mark.parametrize(
    ("ledger", "figures"),
    [
        ({"peak_allocated_bytes": 7 * GIB // 2}, {"allocated", "reserved"}),
        ({"peak_reserved_bytes": 9 * GIB // 2}, {"process"}),  # sampled: it missed a peak
        ({"peak_process_bytes": 11 * GIB // 2}, {"process", "device"}),
        ({"peak_process_bytes": 5 * GIB // 2}, {"process"}),
    ],
)
def test_each_holds_what_the_one_before_it_holds(ledger, figures):
    found = broken(on_card(**ledger))
    assert set(found) - {"memory.context_bytes"} == {f"memory.peak_{n}_bytes" for n in figures}
    assert ("memory.context_bytes" in found) is (figures != {"allocated", "reserved"})
    assert all("is more than" in found[f"memory.peak_{name}_bytes"] for name in figures)


def test_a_reading_that_is_absent_is_stepped_over():
    alone = {"peak_process_bytes": None, "context_bytes": None}
    assert broken(on_card(**alone)) == {}
    found = broken(on_card(**alone, peak_device_bytes=GIB))
    assert set(found) == {"memory.peak_device_bytes"}


@pytest.mark.parametrize("name", [name for name in LEDGER if name != "context_bytes"])
def test_zero_is_no_reading(name):
    # 0.0 MB was published because NVML did not know the PID.
    found = broken(on_card(**{name: 0}))
    assert "nothing was measured" in found[f"memory.{name}"]


@pytest.mark.parametrize("context", [-1, 30 * GIB, 1])
def test_a_context_that_is_not_process_less_reserved(context):
    assert set(broken(on_card(context_bytes=context))) == {"memory.context_bytes"}


def test_a_peak_of_the_cell_that_no_phase_has():
    measured = measurement()
    memory = measured.memory.model_copy(update={"peak_pss_bytes": GIB})
    found = broken(measured.with_rank(memory=memory))
    assert set(found) == {"memory.peak_pss_bytes"}


def test_a_cpu_cell_whose_model_was_on_a_card():
    found = broken(measurement().with_rank(model_device="GPU-1"))
    assert {"memory.peak_rss_bytes", "steps.median_s"} <= set(found)


def test_a_training_time_that_is_not_its_phases():
    assert set(broken(measurement().model_copy(update={"train_s": 1e6}))) == {"train_s"}


def test_more_tokens_a_second_than_there_were():
    measured = measurement()
    phases = dict(measured.phases)
    for name in ("first_steps", "train"):
        counts = {"real_tokens": 500, "padded_tokens": 640}
        phases[name] = phases[name].model_copy(update=counts)
    whole = measured.with_rank(phases=phases)
    assert broken(whole) == {}
    steps = measured.steps.model_copy(update={"real_tokens_per_s": 9e5, "padded_tokens_per_s": 1e6})
    found = broken(whole.with_rank(steps=steps))
    assert set(found) == {"steps.real_tokens_per_s", "steps.padded_tokens_per_s"}


def test_a_peak_that_was_added_up():
    # 316,579 MB were published by adding to a running maximum.
    measured = on_card()
    total = measured.memory.model_copy(update={"peak_allocated_bytes": 5 * 2 * GIB})
    found = broken(measured.with_rank(memory=total))
    assert "not the largest of its phases" in found["memory.peak_allocated_bytes"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peak_reserved_bytes", 16 * GIB + 1),
        ("peak_process_bytes", 18 * GIB),
        ("peak_device_bytes", 18 * GIB),
        ("peak_rss_bytes", 2**34 + 1),
        ("peak_pss_bytes", 2**34 + 1),
    ],
)
def test_more_than_there_is(name, value):
    assert "more memory than the machine has" in broken(on_card(**{name: value}))[f"memory.{name}"]


@pytest.mark.parametrize("where", ["cpu", "GPU-2"])
def test_figures_of_another_device_than_the_models(where):
    found = broken(on_card().with_rank(model_device=where))
    assert "memory.peak_allocated_bytes" in found
    assert "memory.peak_rss_bytes" not in found


def test_nvml_on_another_card():
    found = broken(on_card(sampling={"device_uuid": "GPU-2"}))
    assert set(found) == {
        f"memory.{name}" for name in ("peak_process_bytes", "peak_device_bytes", "context_bytes")
    }


@pytest.mark.parametrize(("ratio", "trusted"), [(1.0, True), (1.25, True), (1.26, False)])
def test_a_figure_that_grows_with_sampling_time(ratio, trusted):
    found = broken(on_card(sampling={"growth": {"peak_process_bytes": ratio}}))
    assert ("memory.peak_process_bytes" not in found) is trusted


def steps(**changes):
    measured = measurement()
    return measured.with_rank(steps=measured.steps.model_copy(update=changes))


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"samples_per_s": 16.0 * 10}, "samples_per_s"),  # multiplied by the number of steps
        ({"samples": 800, "samples_per_s": 160.0}, "samples_per_s"),
        ({"real_tokens_per_s": 1e6}, "real_tokens_per_s"),
        ({"median_s": 0.6}, "median_s"),
        ({"median_low_s": 0.51}, "median_s"),
        ({"mfu": 1.2}, "mfu"),
        ({"mfu": 0.0}, "mfu"),
        ({"mfu": 0.4}, "mfu"),  # of 5e8 FLOP/s against 1e9
        ({"mfu": 0.5, "flops_per_s": None}, "mfu"),
        ({"min_s": 0.51}, "min_s"),
        ({"min_s": 0.0}, "min_s"),
        ({"real_tokens_per_s": 256.1}, "real_tokens_per_s"),  # 256 padded ones
        ({"median_high_s": 0.49}, "median_s"),
        ({"q1_s": 0.51}, "median_s"),
    ],
)
def test_rates_that_their_own_samples_do_not_give(changes, figure):
    assert set(broken(steps(**changes))) == {f"steps.{figure}"}


def test_seconds_that_are_too_long_take_every_rate_along():
    found = broken(steps(seconds=50.0, samples_per_s=1.6))
    assert set(found) == {"steps.median_s", "steps.samples_per_s"}
    measured = steps(seconds=50.0, samples_per_s=1.6)
    row = cells_table([record(measurement=measured)]).iloc[0]
    assert row[["samples_per_s", "tokens_per_s", "mfu", "flops_per_s"]].isna().all()


def test_a_total_that_is_not_its_phases_or_longer_than_the_worker_lived():
    measured = measurement()
    assert "sum" in broken(measured.model_copy(update={"total_s": 11.0}))["total_s"]
    assert "lifetime" in broken(measured, wall_s=5.0)["total_s"]


@pytest.mark.parametrize("accuracy", [-0.1, 1.5])
def test_an_accuracy_that_is_no_share(accuracy):
    assert "scores.accuracy" in broken(measurement(eval_accuracy=accuracy))


def test_a_cell_that_failed_has_nothing_to_break():
    from ftbench.records.record import Failure

    assert broken(None, status="oom", failure=Failure(message="m")) == {}


def test_no_table_shows_an_untrusted_number():
    one = record(measurement=on_card(peak_process_bytes=GIB))
    (row,) = cells_table([one]).to_dict("records")
    assert row["status"] == "untrusted"
    assert pd.isna(row["peak_process_bytes"])
    assert row["peak_reserved_bytes"] == 3 * GIB  # exact: the sampled one is wrong
    assert row["peak_allocated_bytes"] == 2 * GIB
    assert "is more than" in row["untrusted"]


def test_the_ledger_keeps_the_number_beside_the_reason():
    table = memory_table([record(measurement=on_card(peak_process_bytes=GIB))])
    row = table[(table["phase"] == "cell") & (table["figure"] == "peak_process_bytes")].iloc[0]
    assert row["bytes"] == GIB
    assert "is more than" in row["untrusted"]


def test_the_ledger_has_baseline_source_unit_and_reason():
    measured = measurement(absent={"memory.peak_process_bytes": "the cell ran on the CPU"})
    table = memory_table([record(measurement=measured)]).set_index(["phase", "figure"])
    rss = table.loc[("train", "peak_rss_bytes")]
    assert (rss["bytes"], rss["idle_bytes"], rss["unit"], rss["source"]) == (
        GIB,
        2**28,
        "byte",
        "VmHWM",
    )
    assert table.loc[("save", "peak_process_bytes")]["absent"] == "the cell ran on the CPU"


def test_what_a_record_says_itself_is_believed():
    one = record(untrusted={"memory.peak_rss_bytes": "the meter said so"})
    assert cells_table([one]).iloc[0]["status"] == "untrusted"


def test_an_untrusted_cell_is_in_no_chain():
    from ftbench.analysis.tables.axis_series import series_along
    from ftbench.analysis.tables.cells_table import varying_axes
    from tests.factories import cell

    good = [record(cell(max_length=n)) for n in (8, 16)]
    bad = record(cell(max_length=32), measurement=measurement(memory={"peak_rss_bytes": 0}))
    table = cells_table([*good, bad])
    (chain,) = series_along(table, "max_length", varying_axes([*good, bad]))
    assert list(chain.values.index) == [8, 16]


def test_a_phase_can_be_the_one_that_is_wrong():
    measured = on_card()
    wrong = Memory(**(LEDGER | {"peak_allocated_bytes": 3 * GIB + 1}))
    phases = dict(measured.phases) | {
        "evaluation": Phase(wall_s=2.0, cpu_s=2.0, entries=1, memory=wrong)
    }
    found = broken(measured.with_rank(phases=phases))
    assert "in evaluation" in found["memory.peak_allocated_bytes"]


@pytest.mark.parametrize(
    "changes",
    [
        {"min_s": 0.5},  # as fast as a quarter of them
        {"min_s": 0.01},
        {"mfu": None, "flops_per_s": None},
        {"real_tokens_per_s": 256.0},  # nothing is padded
        {"q1_s": 0.4, "q3_s": 0.6, "median_low_s": 0.45, "median_high_s": 0.55},
    ],
)
def test_steps_that_are_as_they_may_be(changes):
    assert broken(steps(**changes)) == {}


def test_an_mfu_against_a_peak_that_is_not_known():
    assert set(broken(measurement(peak_matmul_flops=None))) == {"steps.mfu"}
    all_of_it = measurement(peak_matmul_flops=5e8)
    whole = all_of_it.steps.model_copy(update={"mfu": 1.0})
    assert broken(all_of_it.with_rank(steps=whole)) == {}


def test_short_steps_have_a_rate_of_their_own():
    quick = {"seconds": 0.5, "samples": 80, "samples_per_s": 160.0}
    rates = {"real_tokens_per_s": 100.0, "padded_tokens_per_s": 128.0}
    assert broken(steps(**quick, **rates)) == {}
    assert set(broken(steps(**quick | {"samples_per_s": 16.0}, **rates))) == {"steps.samples_per_s"}


def test_tokens_are_counted_over_the_seconds_they_took():
    """1,000 real and 1,280 padded tokens in 5 s of steps: 200 and 256 a second, and no more."""
    measured = measurement()
    phases = dict(measured.phases)
    counts = {"first_steps": (0, 0), "train": (1000, 1280)}
    for name, (real, padded) in counts.items():
        update = {"real_tokens": real, "padded_tokens": padded}
        phases[name] = phases[name].model_copy(update=update)
    whole = measured.with_rank(phases=phases)
    for real, padded, figures in (
        (200.0, 256.0, set()),
        (200.1, 256.0, {"steps.real_tokens_per_s"}),
        (200.0, 256.1, {"steps.padded_tokens_per_s"}),
    ):
        rates = {"real_tokens_per_s": real, "padded_tokens_per_s": padded}
        of = whole.with_rank(steps=measured.steps.model_copy(update=rates))
        assert set(broken(of)) == figures


def test_where_samples_were_not_counted_none_are_too_many():
    measured = measurement()
    phases = {n: p.model_copy(update={"samples": None}) for n, p in measured.phases.items()}
    assert broken(measured.with_rank(phases=phases)) == {}


@pytest.mark.parametrize("name", ["peak_process_bytes", "peak_reserved_bytes"])
def test_a_context_without_both_of_its_parts_is_wrong(name):
    found = broken(on_card(**{name: None}))
    assert set(found) == {"memory.context_bytes"}


def test_a_process_may_have_all_of_its_memory_reserved():
    assert broken(on_card(peak_process_bytes=3 * GIB, context_bytes=0)) == {}


def test_a_context_is_doubted_with_the_process_that_it_is_of():
    """More allocated than reserved says nothing of it; more process than device does."""
    inner = broken(on_card(peak_allocated_bytes=7 * GIB // 2))
    outer = broken(on_card(peak_process_bytes=6 * GIB, context_bytes=3 * GIB))
    assert ("memory.context_bytes" in inner, "memory.context_bytes" in outer) == (False, True)
    said = inner["memory.peak_allocated_bytes"]
    assert "allocated (3.5 GiB) is more than reserved (3.0 GiB)" in said


@pytest.mark.parametrize("name", ["process", "device"])
def test_a_process_may_have_a_little_more_than_the_card_reports(name):
    """nvidia-smi's total is larger than what CUDA reports."""
    limit = CARD.total_memory_bytes * DEVICE_SLACK
    inner = {"peak_process_bytes": int(limit)} if name == "device" else {}
    outer = {"peak_device_bytes": int(limit)} if name == "process" else {}
    for value, wrong in ((int(limit), False), (int(limit) + 2, True)):
        found = broken(on_card(**{f"peak_{name}_bytes": value}, **inner, **outer))
        more = "more memory than the machine has"
        assert (more in found.get(f"memory.peak_{name}_bytes", "")) is wrong


def test_all_of_the_machines_memory_is_not_too_much():
    everything = environment().memory_bytes
    assert broken(measurement(memory={"peak_rss_bytes": everything})) == {}
    assert set(broken(measurement(memory={"peak_rss_bytes": everything + 1}))) == {
        "memory.peak_rss_bytes"
    }


@pytest.mark.parametrize(
    ("value", "wrong"), [(0.0, True), (1e-9, False), (1.0, False), (1.01, True)]
)
def test_an_mfu_is_above_nothing_and_at_most_one(value, wrong):
    measured = measurement()
    peak = measured.steps.flops_per_s / value if value else 1e9
    steps = measured.steps.model_copy(update={"mfu": value})
    of = measured.with_rank(steps=steps).model_copy(update={"peak_matmul_flops": peak})
    assert ("steps.mfu" in broken(of)) is wrong


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_may_be_none_or_all(value):
    assert broken(measurement(eval_accuracy=value)) == {}


def test_totals_are_the_sums_of_their_phases_within_rounding():
    """A millionth of the time is rounding; a thousandth is not."""
    measured = measurement()
    for name, figure in (("total_s", measured.total_s), ("train_s", measured.train_s)):
        rounded = measured.model_copy(update={name: figure * (1 + 1e-12)})
        assert name not in broken(rounded)
        other = measured.model_copy(update={name: figure * 1.001})
        assert name in broken(other)


def test_a_run_may_last_as_long_as_its_worker_and_the_clocks_slack():
    measured = measurement()
    longest = (measured.total_s - CLOCK_SLACK_S) / CLOCK_SLACK
    assert "total_s" not in broken(measured, wall_s=longest + 1e-6)
    assert "total_s" in broken(measured, wall_s=longest - 1e-3)
