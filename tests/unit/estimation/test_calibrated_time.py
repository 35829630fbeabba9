"""Times on a calibrated device: planted laws come back, and whole runs follow from their parts."""

import dataclasses
import math

import pytest

from ftbench.estimation.calibrated_run import (
    LEAST_FACTOR,
    card_named,
    cards_of,
    checks_of,
    factor_of_cells,
    of_card,
    of_cpu,
    run_seconds,
    with_first,
    with_measured_memory,
)
from ftbench.estimation.calibrated_time import MeasuredSpeed
from ftbench.estimation.estimate import card_of_device
from ftbench.estimation.roofline import seconds_beside
from ftbench.plan.gpus import capacity_bytes, find_gpu
from ftbench.plan.schedule import schedule_of
from ftbench.records.calibration import CardFigures, CellCheck
from ftbench.records.environment import Device
from ftbench.records.kernel_work import AttentionCall, KernelWork, MemoryKernels, Product
from ftbench.records.prediction import CellWork, PassWork, Predictions
from tests.calibrated import (
    PASSES_S,
    SIZES,
    START_S,
    UPDATE_S,
    calibration,
    memory_law,
    product_law,
)
from tests.factories import cell, measurement, predicted_cell, record


def work(products=(), memory=(), attention=(), kernels=0, documents=8):
    """The work of a pass with these kernels."""
    return PassWork(
        documents=documents,
        batches=1,
        flops=1,
        product_bytes=1,
        other_bytes=1,
        compulsory_bytes=1,
        kernels=kernels,
        by_kernel=KernelWork(products=products, memory=memory, attention=attention),
    )


def product(m=1000, n=300, k=700, **changes):
    return Product(batch=1, m=m, n=n, k=k, dtype="float32", **changes)


def rows(nbytes, kernels, *, update=False, kind="elementwise"):
    return MemoryKernels(
        kind=kind, dtype="float32", update=update, nbytes=nbytes, kernels=kernels, tensors=kernels
    )


@pytest.mark.parametrize(
    ("m", "n", "k"), [(64, 512, 4096), (1000, 300, 700), (128, 128, 128), (2048, 768, 3072)]
)
def test_products_between_measured_shapes_follow_their_law(m, n, k):
    found = MeasuredSpeed(calibration()).product_seconds(product(m, n, k))
    assert found == pytest.approx(product_law(1, m, n, k), rel=0.15)


def test_a_measured_size_of_memory_takes_as_long_as_it_took():
    speed = MeasuredSpeed(calibration())
    for size in SIZES:
        assert speed.memory_seconds(rows(3 * size, 3)) == pytest.approx(3 * memory_law(size))


@pytest.mark.parametrize("size", [3000, 5 * 10**5, 5 * 10**6])
def test_between_measured_sizes_memory_follows_its_law(size):
    found = MeasuredSpeed(calibration()).memory_seconds(rows(size, 1))
    assert found == pytest.approx(memory_law(size), rel=0.1)


def test_beyond_the_largest_size_time_is_in_proportion():
    speed = MeasuredSpeed(calibration())
    one, ten = (speed.memory_seconds(rows(SIZES[-1] * times, 1)) for times in (1, 10))
    assert ten == pytest.approx(10 * one)


def test_a_kind_that_was_not_measured_counts_as_elementwise():
    speed = MeasuredSpeed(calibration())
    assert speed.memory_seconds(rows(4096, 2, kind="gather")) == speed.memory_seconds(rows(4096, 2))


def test_on_a_cpu_the_hosts_part_is_added():
    of = work((product(),), (rows(40_960, 10),), kernels=11)
    speed = MeasuredSpeed(calibration())
    found = speed.seconds(of)
    assert found.products == speed.product_seconds(product())
    assert found.total == pytest.approx(found.products + found.memory + found.host)
    assert found.host == pytest.approx(11 * (PASSES_S - START_S), rel=0.3)


def test_on_a_card_the_slower_of_host_and_kernels_decides():
    speed = MeasuredSpeed(calibration("cuda"))
    heavy = work((product(4096, 4096, 4096, count=10),), kernels=10)
    assert speed.seconds(heavy).total == pytest.approx(speed.seconds(heavy).products, rel=1e-3)
    light = work((product(64, 64, 64, count=10),), kernels=10_000)
    assert speed.seconds(light).total == pytest.approx(10_000 * PASSES_S, rel=1e-3)


def test_an_update_waits_for_its_own_host_part():
    speed = MeasuredSpeed(calibration("cuda"))
    of = work((product(64, 64, 64),), (rows(1024, 1000, update=True),), kernels=1001)
    assert speed.seconds(of).total == pytest.approx(PASSES_S + 1000 * UPDATE_S, rel=0.1)


def test_fused_attention_is_between_its_neighbours():
    row = AttentionCall(
        call_flops=3 * 10**9, length=256, dtype="float32", causal=False, backward=False, count=4
    )
    found = MeasuredSpeed(calibration()).seconds(work((product(),), attention=(row,)))
    assert 4 * 2e-3 < found.attention < 4 * 1e-2


@pytest.mark.parametrize(
    "of",
    [
        work((Product(batch=1, m=8, n=8, k=8, dtype="bfloat16"),)),
        work((product(flops_only=True),)),
        work(),
        work(
            (product(),),
            attention=(
                AttentionCall(call_flops=9, length=8, dtype="float32", causal=False, backward=True),
            ),
        ),
    ],
)
def test_what_was_not_measured_is_not_covered(of):
    assert not MeasuredSpeed(calibration()).covers(of)


def test_what_was_measured_is_covered():
    assert MeasuredSpeed(calibration()).covers(work((product(),)))


def check(predicted, measured=1.0):
    return CellCheck(name="8 x 64", predicted_step_s=predicted, measured_step_s=measured)


@pytest.mark.parametrize(
    ("cells", "factor"),
    [
        ((), 1.4),
        ((check(1.02), check(0.97)), LEAST_FACTOR),
        ((check(1.3), check(0.95)), 1.3**1.5),
        ((check(0.8),), 1.25**1.5),
    ],
)
def test_the_interval_is_as_wide_as_the_cells_were_off(cells, factor):
    assert factor_of_cells(cells) == pytest.approx(factor)


def test_a_run_is_its_steps_its_evaluations_and_the_rest():
    one = cell()
    job, speed = schedule_of(one), MeasuredSpeed(calibration())
    step = work((product(),), documents=one.examples_per_step)
    evaluation = work((product(64, 64, 64),), documents=4)
    of = CellWork(step=step, evaluation=evaluation, checkpoint_bytes=10**6)
    found = run_seconds(job, of, speed, 1.2, None)
    beside = seconds_beside(job, of)
    passes = job.documents / one.examples_per_step
    evaluated = job.evaluations * job.eval_documents / 4
    kernels = speed.seconds(step).total * passes + speed.seconds(evaluation).total * evaluated
    assert found.value == pytest.approx(kernels + beside.value)
    assert found.low == pytest.approx(kernels / 1.2 + beside.low)
    assert found.high == pytest.approx(kernels * 1.2 + beside.high)


def test_a_card_is_known_by_the_drivers_name():
    card, cpu = calibration("cuda"), calibration("cpu")
    assert of_card(find_gpu("l4"), [cpu, card]) is card
    assert of_card(find_gpu("t4"), [card]) is None
    assert of_cpu([card, cpu]) is cpu


def named(kind, name, **changes):
    """Return a calibration of a device of this name."""
    one = calibration(kind)
    return one.model_copy(update={"device": one.device.model_copy(update={"name": name} | changes)})


@pytest.mark.parametrize("name", ["NVIDIA L4", "L4", "nvidia l4"])
def test_a_card_is_known_as_by_the_option(name):
    card = named("cuda", name)
    assert of_card(find_gpu("l4"), [card]) is card
    assert of_card(with_measured_memory(find_gpu("l4"), [card]), [card]) is card
    assert cards_of(card) == (find_gpu("l4"),)


def test_a_card_that_is_not_in_the_catalogue_is_one_of_its_size():
    small = {"compute_capability": (9, 0), "total_memory_bytes": 10 * 2**30}
    (found,) = cards_of(named("cuda", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", **small))
    assert (found.memory_low_bytes, found.memory_bytes) == (10 * 2**30, 10 * 2**30)
    assert found.compute_capability == (9, 0)
    assert cards_of(named("cuda", "Another", **small | {"compute_capability": (3, 5)})) == ()
    assert cards_of(named("cuda", "Another")) == ()
    assert cards_of(calibration("cpu")) == ()
    assert of_card(find_gpu("l4"), [named("cuda", "Another", **small)]) is None


def test_a_calibrated_card_that_the_catalogue_lacks_is_found_by_its_name():
    other = named("cuda", "NVIDIA RTX 9", compute_capability=(9, 0), total_memory_bytes=10 * 2**30)
    known = [calibration("cpu"), calibration("cuda"), other]
    card = card_named("rtx-9", known)
    assert (card.name, card.memory_bytes) == ("NVIDIA RTX 9", 10 * 2**30)
    assert of_card(card, known) is other
    assert card_named("rtx-90", known) is None
    device = Device(kind="cuda", name="NVIDIA RTX 9")
    assert card_of_device(device, known) == card
    assert card_of_device(device) is None


def test_of_several_cpus_the_one_of_this_machine_is_meant():
    first, second, card = named("cpu", "A"), named("cpu", "B"), named("cuda", "B")
    assert of_cpu(with_first([first, card, second], "B")) is second
    assert of_cpu(with_first([first, card, second], "C")) is first


def test_a_context_with_the_memory_of_other_processes_is_not_taken():
    measured = calibration("cuda", card=CardFigures(context_bytes=8 * 2**30))
    before, after = find_gpu("l4"), with_measured_memory(find_gpu("l4"), [measured])
    assert capacity_bytes(after) == capacity_bytes(before)


def test_a_measured_context_and_total_take_the_place_of_intervals():
    measured = calibration("cuda", card=CardFigures(context_bytes=300 * 2**20))
    measured = measured.model_copy(
        update={"device": measured.device.model_copy(update={"total_memory_bytes": 23 * 2**30})}
    )
    before = find_gpu("l4")
    after = with_measured_memory(before, [measured])
    widths = [high - low for low, high in map(capacity_bytes, (before, after))]
    assert widths[1] < widths[0]
    assert after.context_low_bytes < 300 * 2**20 < after.context_high_bytes
    assert with_measured_memory(find_gpu("t4"), [measured]) == find_gpu("t4")


def test_cells_are_set_beside_their_measurement():
    one = cell()
    of = CellWork(step=work((product(),)), evaluation=work((product(),)), checkpoint_bytes=1)
    predicted = Predictions(cells=(predicted_cell(one.cell_id, work=of),))
    (found,) = checks_of(
        calibration(), [record(one, measurement=measurement(step_median_s=0.5))], predicted
    )
    assert found.measured_step_s == 0.5
    assert found.predicted_step_s > MeasuredSpeed(calibration()).seconds(of.step).total
    assert math.isfinite(factor_of_cells([found]))


def test_a_run_without_evaluations_needs_none_of_their_kernels():
    one = cell()
    job = dataclasses.replace(schedule_of(one), evaluations=0)
    step = work((product(),), documents=one.examples_per_step)
    unknown = work((Product(batch=1, m=8, n=8, k=8, dtype="bfloat16"),))
    of = CellWork(step=step, evaluation=unknown, checkpoint_bytes=1)
    speed = MeasuredSpeed(calibration())
    found = run_seconds(job, of, speed, 1.2, None)
    passes = job.documents / one.examples_per_step
    kernels = speed.seconds(step).total * passes
    assert found.value == pytest.approx(kernels + seconds_beside(job, of).value)
