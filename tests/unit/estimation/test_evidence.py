"""Evidence: which runs say something of a cell, for which device, and how far it lies outside them."""

import pytest

from ftbench.analysis.fits.laws import Fit, LearningCurve
from ftbench.analysis.fits.reasons import TooFewSizes
from ftbench.estimation.evidence import (
    curves_for,
    evidence_for,
    fixed_differences,
    workload_differences,
)
from ftbench.estimation.reasons import (
    NoSimilarRun,
    NotMeasured,
    NoTrustedRun,
    SettingDifference,
)
from tests.factories import (
    cell,
    data_source,
    device,
    environment,
    measurement,
    model_source,
    record,
)

HERE = environment()
CARD = device(kind="cuda", name="Tesla T4", uuid="GPU-1")
ELSEWHERE = environment(device=CARD)
ENVIRONMENTS = {one.environment_id: one for one in (HERE, ELSEWHERE)}


def run(*, on=HERE, joules=None, total_s=10.0, of=None, **axes):
    """A run that took so long, and its energy in the training phase and none elsewhere."""
    of = of or cell(**axes)
    measured = measurement(total_s=total_s)
    if joules is not None:
        phases = {
            name: phase.model_copy(update={"energy_j": joules if name == "train" else 0.0})
            for name, phase in measured.phases.items()
        }
        measured = measured.with_rank(phases=phases)
    return record(of, environment_id=on.environment_id, measurement=measured)


def grown(*, on=HERE):
    """Runs of nine cells whose step takes 10 ms and 1 ms per token."""
    found = []
    for length in (16, 32, 64):
        for batch in (4, 8, 16):
            of = cell(max_length=length, per_device_train_batch_size=batch, train_size=64)
            step = 0.01 + 0.001 * batch * length
            measured = measurement(
                step_median_s=step, memory={"peak_rss_bytes": 2**29 + 1000 * batch * length}
            )
            found.append(record(of, environment_id=on.environment_id, measurement=measured))
    return found


def only(records, of=None):
    (found,) = evidence_for(of or cell(), records, ENVIRONMENTS)
    return found


# Of which workload


def test_runs_of_the_same_content_are_of_one_workload():
    other = cell().model_copy(update={"model": model_source(), "data": data_source()})
    assert workload_differences(other, [run()]) == []


def test_a_name_is_not_content():
    source = data_source().source.model_copy(update={"reference": "elsewhere", "location": "/x"})
    other = cell().model_copy(update={"data": data_source(source=source)})
    assert workload_differences(other, [run()]) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"data": data_source(eval_size=99)}, ("eval_size", 8, 99)),
        ({"model": model_source(weights="random")}, ("weights", "pretrained", "random")),
        (
            {"model": model_source(config=(("hidden_size", 32),))},
            ("config.hidden_size", None, 32),
        ),
    ],
)
def test_what_differs_in_a_workload_is_named(changed, expected):
    found = workload_differences(cell().model_copy(update=changed), [run()])
    assert found == [SettingDifference(*expected)]


def test_settings_and_axes_are_no_workload():
    assert workload_differences(cell(max_length=32, bf16=True), [run()]) == []


# Which runs, on which device


def test_runs_on_two_devices_say_something_of_each():
    found = evidence_for(cell(), [run(), run(on=ELSEWHERE)], ENVIRONMENTS)
    assert [one.device for one in found] == [HERE.device, CARD.model_copy(update={"uuid": None})]
    assert [len(one.records) for one in found] == [1, 1]


def test_two_cards_of_one_kind_are_one_device():
    twin = environment(device=CARD.model_copy(update={"uuid": "GPU-2"}))
    both = ENVIRONMENTS | {twin.environment_id: twin}
    (found,) = evidence_for(cell(), [run(on=ELSEWHERE), run(on=twin, train_size=32)], both)
    assert found.device.name == CARD.name


def test_runs_with_other_settings_say_nothing():
    found = only([run(gradient_checkpointing=True)])
    assert found.records == ()
    checkpointing = SettingDifference("gradient_checkpointing", True, None)
    assert found.fit("total_s") == NoSimilarRun((checkpointing,))


def test_a_learning_rate_costs_nothing():
    assert len(only([run(learning_rate=1e-3)]).records) == 1


def test_runs_with_as_many_epochs_come_before_others():
    of = cell(num_train_epochs=5)
    assert len(only([run(num_train_epochs=2)], of).records) == 1
    five = run(num_train_epochs=5, train_size=32)
    assert only([run(num_train_epochs=2), five], of).records == (five,)


def test_a_step_time_is_fitted():
    fit = only(grown()).fit("step_median_s")
    assert isinstance(fit, Fit)
    found = fit.predict({"max_length": 48, "per_device_train_batch_size": 8, "train_size": 64})
    assert found.value == pytest.approx(0.01 + 0.001 * 48 * 8, rel=0.01)


def test_a_cost_that_was_not_measured_is_refused():
    assert only(grown()).fit("peak_process_bytes") == NotMeasured()


# How far outside


def test_a_cell_within_is_not_outside():
    of = cell(max_length=40, per_device_train_batch_size=8, train_size=64)
    assert only(grown(), of).outside == ()


def test_other_epochs_than_the_runs_had_are_outside():
    of = cell(max_length=40, per_device_train_batch_size=8, train_size=64, num_train_epochs=9)
    (epochs,) = only(grown(), of).outside
    assert (epochs.axis, epochs.target, epochs.high) == ("num_train_epochs", 9, 3)


def test_outside_is_of_the_cells_that_were_fitted():
    broken = measurement(memory={"peak_rss_bytes": 0})
    large = record(cell(max_length=512), environment_id=HERE.environment_id, measurement=broken)
    elsewhere = run(on=environment(python="3.12.0"), max_length=256)
    environments = ENVIRONMENTS | {elsewhere.environment_id: environment(python="3.12.0")}
    (found,) = evidence_for(cell(max_length=128), [*grown(), large, elsewhere], environments)
    assert len(found.records) == 9
    assert found.outside[0].high == 64


def test_axes_on_which_a_cell_lies_outside_are_named_with_their_factor():
    of = cell(max_length=512, per_device_train_batch_size=2, train_size=64)
    length, batch = only(grown(), of).outside
    assert (length.axis, length.low, length.high, length.factor) == ("max_length", 16, 64, 8)
    assert (batch.axis, batch.factor) == ("per_device_train_batch_size", 2)


# Energy


def test_power_is_that_of_whole_runs():
    runs = [
        run(joules=joules, train_size=size) for joules, size in ((500, 16), (700, 32), (900, 64))
    ]
    power = only(runs).power()
    assert (power.low, power.value, power.high) == (50, 70, 90)


def test_without_energy_there_is_no_power():
    assert only([run()]).power() is None


def test_what_a_group_holds_and_a_cell_has_not_is_named():
    assert fixed_differences({"method": "full", "optim": "adamw_torch_fused"}, cell()) == {}
    assert fixed_differences({"method": "lora", "max_length": 16}, cell()) == {"method": "lora"}


# Accuracy


def learned(batch=4, **training):
    """Runs of five sizes and three seeds: an error of 0.1 and 2 / sqrt(documents), give or take 0.002."""
    found = []
    for size in (25, 100, 400, 1600, 6400):
        of = cell(train_size=size, per_device_train_batch_size=batch, **training)
        for replicate, noise in enumerate((-0.002, 0.0, 0.002)):
            accuracy = 0.9 - 2 / size**0.5 * 0.8 + noise
            found.append(
                record(of, replicate=replicate, measurement=measurement(eval_accuracy=accuracy))
            )
    return found


def test_a_curve_is_fitted_to_runs_of_the_cells_kind():
    (curve,) = curves_for(cell(train_size=25_000), learned())
    assert isinstance(curve, LearningCurve)
    found = curve.predict(25_000)
    assert found.value == pytest.approx(0.9 - 1.6 / 25_000**0.5, abs=0.01)
    assert found.low <= 0.9 - 1.6 / 25_000**0.5 <= found.high


def test_a_curve_of_another_batch_is_there_too_and_of_another_rate_is_not():
    both = curves_for(cell(), learned() + learned(batch=8))
    assert [fixed_differences(one.fixed, cell()) for one in both] == [
        {},
        {"per_device_train_batch_size": 8},
    ]
    rate = SettingDifference("learning_rate", 1e-3, 2e-5)
    assert curves_for(cell(), learned(learning_rate=1e-3)) == NoSimilarRun((rate,))


def test_too_few_sizes_are_refused_with_the_reason():
    (refused,) = curves_for(cell(), learned()[:6])
    assert refused.reason == TooFewSizes(2, 4)


def test_runs_that_cannot_be_trusted_have_no_curve():
    broken = measurement(eval_accuracy=0.7, memory={"peak_rss_bytes": 0})
    assert curves_for(cell(), [record(measurement=broken)]) == NoTrustedRun()
