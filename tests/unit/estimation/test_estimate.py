"""Estimates: which cell is meant, which runs are used, on which devices, and what each costs."""

import pytest

from ftbench.base.errors import RunDirectoryError
from ftbench.estimation.estimate import (
    MeasuredRuns,
    devices_of,
    estimate,
    read_measured,
    target_of,
)
from ftbench.estimation.prices import given_prices
from ftbench.estimation.reasons import (
    CalibratedTimes,
    CalibratedWithOtherTorch,
    DamagedRecords,
    FromPrediction,
    MayNotFit,
    NoEnergy,
    NoRunFinished,
    NoSimilarRun,
    NoTimeFromRuns,
    NotPredicted,
    OtherWorkload,
    Outside,
    PredictedForCard,
    RooflineRates,
    RunsFit,
    RunsUntrusted,
    SettingDifference,
    TimeFromKernels,
    TimeFromRoofline,
    TooFewExamples,
)
from ftbench.plan.gpus import find_gpu
from ftbench.records.kernel_work import KernelWork, Product
from ftbench.records.prediction import LargestBatch, Predictions, Refused
from ftbench.records.run_directory import RunDirectory
from tests.calibrated import calibration
from tests.factories import (
    cell_work,
    data_source,
    device,
    environment,
    measurement,
    model_source,
    pass_work,
    predicted_card,
    predicted_cell,
    preparation,
    profile,
    record,
)

CARD = environment(
    device=device(kind="cuda", name="NVIDIA L4", uuid="GPU-1", total_memory_bytes=2**34)
)
PROCESSOR = environment()


def target(grid=None, training=None, eval_size=8, **given):
    blocks = {"grid": grid} if grid else {}
    of = profile(training=training or {}, **blocks)
    return target_of(of, model_source(), data_source(eval_size=eval_size), given)


# Which cell


def test_what_is_given_is_the_cell():
    found = target(max_length=512, train_size=25_000, per_device_train_batch_size=16)
    axes = (found.cell.max_length, found.cell.train_size, found.cell.per_device_train_batch_size)
    assert axes == (512, 25_000, 16)
    assert found.assumed == {}


def test_what_is_not_given_is_the_profiles_largest():
    found = target(train_size=25_000, max_length=None)
    assert (found.cell.max_length, found.cell.per_device_train_batch_size) == (32, 8)
    assert found.assumed == {"max_length": 32, "per_device_train_batch_size": 8}


def test_an_axis_of_words_has_its_first_and_is_said():
    block = {
        "max_length": [16],
        "per_device_train_batch_size": [4],
        "train_size": [16],
        "attn_implementation": ["sdpa", "eager"],
        "seed": [7, 8],
        "weight_decay": [0.1],
    }
    found = target([block], max_length=16, train_size=1, per_device_train_batch_size=4)
    assert (found.cell.attn_implementation, found.cell.seed) == ("sdpa", 7)
    assert found.cell.settings["weight_decay"] == 0.1
    assert found.assumed == {"attn_implementation": "sdpa", "seed": 7}


def test_the_largest_is_over_all_blocks():
    blocks = [
        {"max_length": [16, 64], "per_device_train_batch_size": [4], "train_size": [300]},
        {"max_length": [32], "per_device_train_batch_size": [8], "train_size": [20]},
    ]
    found = target(blocks).cell
    assert (found.max_length, found.per_device_train_batch_size, found.train_size) == (64, 8, 300)


def test_other_axes_are_those_of_one_block():
    shape = {"max_length": [32], "per_device_train_batch_size": [4], "train_size": [20]}
    blocks = [
        shape | {"max_length": [16, 64], "learning_rate": [5e-5]},
        shape | {"learning_rate": [1e-3], "bf16": [True]},
        shape | {"max_steps": [3]},
    ]
    found = target(blocks)
    settings = found.cell.settings
    assert settings["learning_rate"] == 5e-5
    assert "max_steps" not in settings
    assert "bf16" not in settings
    assert {"learning_rate", "bf16", "max_steps"} <= found.assumed.keys()


# Which runs


def written(tmp_path, *environments, cells=None, train_pool=100):
    """A run directory with nine cells for each environment: a step takes 10 ms and 1 ms a token."""
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_profile(profile())
    directory.write_preparation(preparation(train_pool=train_pool))
    for number, one in enumerate(environments):
        directory.write_environment(one)
        for length in (16, 32, 64):
            for batch in (4, 8, 16):
                of = target(
                    max_length=length, per_device_train_batch_size=batch, train_size=64
                ).cell
                step = (0.01 + 0.001 * batch * length) / (number + 1)
                directory.write_record(
                    record(
                        of,
                        repeat=number,
                        environment_id=one.environment_id,
                        measurement=measurement(
                            step_median_s=step,
                            memory={"peak_rss_bytes": 2**29 + 1000 * batch * length},
                        ),
                    )
                )
    return directory.path


def test_a_directory_that_nobody_asked_for_may_be_absent(tmp_path):
    assert read_measured(tmp_path / "none", target(), asked=False) == MeasuredRuns()


def test_one_that_was_asked_for_may_not(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        read_measured(tmp_path / "none", target(), asked=True)


def test_runs_of_another_workload_are_refused_by_name(tmp_path):
    with pytest.raises(RunDirectoryError, match="another workload") as refused:
        read_measured(written(tmp_path, PROCESSOR), target(eval_size=99), asked=True)
    assert (refused.value.got, refused.value.expected) == ("eval_size 8", "eval_size 99")


def test_unasked_they_are_left_out_and_said(tmp_path):
    path = written(tmp_path, PROCESSOR)
    found = read_measured(path, target(eval_size=99), asked=False)
    assert found.evidence == ()
    assert found.notes == (OtherWorkload(str(path), SettingDifference("eval_size", 8, 99)),)


def test_a_directory_without_a_finished_run_says_so(tmp_path):
    path = RunDirectory.create(tmp_path / "run").path
    assert read_measured(path, target(), asked=True).notes == (NoRunFinished(str(path)),)


def test_more_training_examples_than_there_are_is_noted(tmp_path):
    found = read_measured(written(tmp_path, PROCESSOR), target(train_size=101), asked=True)
    assert found.notes == (TooFewExamples(100, 101),)


def test_damaged_records_are_counted(tmp_path):
    path = written(tmp_path, PROCESSOR)
    next((path / "records").glob("*.json")).write_text("{")
    assert read_measured(path, target(), asked=True).notes == (DamagedRecords(1, str(path)),)


def test_runs_that_cannot_be_trusted_are_counted(tmp_path):
    path = written(tmp_path, PROCESSOR)
    broken = measurement(memory={"peak_rss_bytes": 0})
    directory = RunDirectory.open(path)
    directory.write_record(record(target(train_size=16, max_length=16).cell, measurement=broken))
    found = read_measured(path, target(), asked=True)
    assert found.notes == (RunsUntrusted(1, 10, str(path)),)


WITHOUT_CHECKPOINTING = NoSimilarRun((SettingDifference("gradient_checkpointing", None, True),))


def test_without_a_fit_of_memory_the_reason_is_there(tmp_path):
    of = target(train_size=64, training={"gradient_checkpointing": True})
    known = read_measured(written(tmp_path, PROCESSOR), of, asked=True)
    (here,) = on(of, known=known, cpu=predictions(of)).devices
    assert figures(here)["peak_rss_bytes"].absent == WITHOUT_CHECKPOINTING


# On which devices


def test_without_a_card_or_runs_there_is_no_device():
    assert devices_of([], MeasuredRuns()) == ([], False)


def test_the_devices_are_those_asked_for_else_those_measured(tmp_path):
    known = read_measured(written(tmp_path, PROCESSOR, CARD), target(), asked=True)
    l4, t4 = find_gpu("l4"), find_gpu("t4")
    assert devices_of([t4], known) == ([t4], False)
    assert devices_of([], known) == ([l4], True)


# What it costs


def predictions(of, *gpus, **changes):
    """A prediction of the cell on these cards: 1 GFLOP per example."""
    found = predicted_cell(of.cell.cell_id, *gpus, work=cell_work(), **changes)
    largest = tuple(
        LargestBatch(
            cell_id=of.cell.cell_id, gpu=gpu, max_length=16, certain=64, possible=66, reserved=None
        )
        for gpu in gpus
    )
    return Predictions(cells=(found,), largest=largest, notes=("a note",))


def on(of, *gpus, known=None, price=(), cards=None, cpu=None, calibrations=()):
    return estimate(
        of,
        [find_gpu(name) for name in gpus],
        known or MeasuredRuns(),
        on_cards=cards or (predictions(of, *gpus) if gpus else None),
        on_cpu=cpu,
        prices=given_prices(price),
        calibrations=calibrations,
    )


def figures(found):
    return {one.name: one for one in found.figures}


def test_on_a_card_that_was_not_measured_time_is_a_roofline():
    of = target(train_size=1000, max_length=16, per_device_train_batch_size=8)
    found = on(of, "l4", price=["0.8"])
    (card,) = found.devices
    its = figures(card)
    assert its["time_s"].interval == "bounds"
    assert its["time_s"].low == pytest.approx(found.flops / 30.3e12)
    assert its["cost_usd"].high == pytest.approx(its["time_s"].high / 3600 * 0.8)
    assert its["reserved_bytes"].value == 120 * 2**20
    assert (card.verdict, card.largest.certain, card.notes) == ("fits", 64, ())
    assert found.notes == (FromPrediction("a note"), TimeFromRoofline())
    assert found.job.steps == 3 * 125


def test_every_card_has_its_own():
    found = on(target(train_size=1000), "l4", "t4", price=["1", "2"])
    slow, fast = figures(found.devices[1])["time_s"], figures(found.devices[0])["time_s"]
    assert slow.low > fast.low
    assert [one.price.usd_per_hour for one in found.devices] == [1, 2]


def test_on_a_card_that_was_measured_time_is_a_fit(tmp_path):
    of = target(train_size=64, max_length=48, per_device_train_batch_size=8)
    known = read_measured(written(tmp_path, CARD), of, asked=True)
    found = on(of, "l4", "t4", known=known)
    time, other = (figures(one)["time_s"] for one in found.devices)
    assert isinstance(time.source, RunsFit)
    assert (time.source.runs, time.source.extrapolated) == (9, False)
    assert isinstance(other.source, RooflineRates)
    assert figures(found.devices[0])["reserved_bytes"].source == PredictedForCard("torch.cuda")


def test_runs_that_give_no_fit_leave_the_roofline_and_say_why(tmp_path):
    of = target(train_size=64, training={"gradient_checkpointing": True})
    known = read_measured(written(tmp_path, CARD), of, asked=True)
    (card,) = on(of, "l4", known=known).devices
    assert isinstance(figures(card)["time_s"].source, RooflineRates)
    assert card.notes[0] == NoTimeFromRuns(WITHOUT_CHECKPOINTING)


def test_without_a_card_it_is_the_machine_that_was_measured(tmp_path):
    of = target(train_size=128, max_length=32, per_device_train_batch_size=8)
    known = read_measured(written(tmp_path, PROCESSOR, train_pool=200), of, asked=True)
    (here,) = on(of, known=known, price=["0.1"], cpu=predictions(of)).devices
    its = figures(here)
    assert here.device == "a processor"
    assert its["tensors_bytes"].interval == "exact"
    expected = 2**29 + 1000 * 8 * 32
    assert its["peak_rss_bytes"].value == pytest.approx(expected, rel=0.01)
    assert (its["time_s"].source.runs, its["time_s"].source.extrapolated) == (9, True)
    assert here.notes[0] == Outside("train_size", 128, 64, 64)
    assert its["energy_j"].absent == NoEnergy()


@pytest.mark.parametrize(
    ("verdict", "certain"), [("does not fit", True), ("too close to call", False)]
)
def test_a_run_that_may_not_fit_says_so_first(verdict, certain):
    of = target(train_size=64)
    cards = predictions(of, cards=(predicted_card("l4", verdict=verdict),))
    (card,) = on(of, "l4", cards=cards).devices
    assert card.verdict == verdict
    assert card.notes[0] == MayNotFit(certain)


def test_a_run_that_is_not_predicted_has_no_figures_but_reasons():
    of = target(train_size=64)
    refused = Refused(cell_id=of.cell.cell_id, reason="training.optim: not covered")
    found = on(of, "l4", cards=Predictions(cells=(), refused=(refused,)), price=["1"])
    its = figures(found.devices[0])
    assert found.refused == "training.optim: not covered"
    assert its["time_s"].absent == its["reserved_bytes"].absent == NotPredicted(found.refused)
    assert its["cost_usd"].value is None
    assert found.flops is None
    assert TimeFromRoofline() not in found.notes


# From a calibration


def calibrated(of, *gpus, torch="2.13.0", **changes):
    """A prediction of the cell with the shapes of its kernels, made with a version of torch."""
    product = Product(batch=1, m=512, n=512, k=512, dtype="float32", count=100)
    known = KernelWork(products=(product,), memory=(), attention=())
    work = cell_work(
        step=pass_work(of.cell.examples_per_step, by_kernel=known),
        evaluation=pass_work(8, by_kernel=known),
    )
    cells = (predicted_cell(of.cell.cell_id, *gpus, work=work, **changes),)
    return Predictions(cells=cells, versions=(("torch", torch),))


def test_on_a_calibrated_card_time_is_of_its_kernels():
    of = target(train_size=1000)
    one = calibration("cuda")
    found = on(of, "l4", "t4", cards=calibrated(of, "l4", "t4"), calibrations=[one])
    here, other = (figures(device)["time_s"] for device in found.devices)
    assert (here.interval, other.interval) == ("calibrated", "90 %")
    assert here.source == CalibratedTimes("2.13.0", 1.4, 0)
    assert found.notes == (TimeFromKernels(),)


def test_products_in_tf32_were_not_measured():
    of = target(train_size=1000, training={"tf32": True})
    one = calibration("cuda")
    (card,) = on(of, "l4", cards=calibrated(of, "l4"), calibrations=[one]).devices
    assert figures(card)["time_s"].interval != "calibrated"


@pytest.mark.parametrize(
    ("torch", "others"), [("2.13.0+cpu", []), ("2.12.1", [("2.13.0", "2.12.1")])]
)
def test_without_a_card_or_runs_it_is_the_calibrated_cpu(torch, others):
    of = target(train_size=1000)
    one = calibration("cpu")
    assert devices_of([], MeasuredRuns(), [one]) == ([], True)
    found = on(of, cpu=calibrated(of, torch=torch), calibrations=[one])
    (here,) = found.devices
    time = figures(here)["time_s"]
    assert here.device == one.device.name
    assert 0 < time.low < time.value < time.high
    assert time.source == CalibratedTimes("2.13.0", 1.4, 0, threads=2)
    assert list(found.notes) == [CalibratedWithOtherTorch(*pair) for pair in others]


@pytest.mark.parametrize(("name", "known"), [("a processor", True), ("another", False)])
def test_runs_that_give_no_fit_leave_the_calibration_of_their_cpu(tmp_path, name, known):
    of = target(train_size=64, training={"gradient_checkpointing": True})
    runs = read_measured(written(tmp_path, PROCESSOR), of, asked=True)
    one = calibration("cpu")
    one = one.model_copy(update={"device": one.device.model_copy(update={"name": name})})
    (here,) = on(of, known=runs, cpu=calibrated(of), calibrations=[one]).devices
    time = figures(here)["time_s"]
    assert (time.value is not None) == known
    if known:
        assert isinstance(time.source, CalibratedTimes)
        assert here.notes[0] == NoTimeFromRuns(WITHOUT_CHECKPOINTING)
    else:
        assert time.absent == WITHOUT_CHECKPOINTING
