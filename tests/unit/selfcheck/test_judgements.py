"""From figures to the verdict of a row."""

import pytest

from ftbench.base.units import MIB
from ftbench.plan.gpus import Gpu, capacity_bytes, find_gpu, load_gpus
from ftbench.records.record import Failure
from ftbench.records.selfcheck import Measured, Overhead, RanksMeasured
from ftbench.selfcheck import largest, ledger, overhead, ranks
from ftbench.selfcheck.cells import grid_of, peaks
from ftbench.selfcheck.rows import CELLS
from ftbench.selfcheck.setting import gpu_of_card, is_known
from tests.factories import figure, measurement, predicted_card, record
from tests.unit.selfcheck.made import card

PREDICTED = predicted_card(
    "l4",
    requested=figure(10, 10, 10),
    allocated=figure(20, 19, 21),
    reserved=figure(30, 30, 30),
    process=figure(40, 35, 45),
)


def measured(requested=10, allocated=20, reserved=30, process=40):
    values = (
        one if one is None else one * MIB for one in (requested, allocated, reserved, process)
    )
    names = ("requested_bytes", "allocated_bytes", "reserved_bytes", "process_bytes")
    return Measured(**dict(zip(names, values, strict=True)))


def agreement(**values):
    return {one.name: one.agrees for one in peaks(measured(**values), PREDICTED)}


def test_a_peak_agrees_within_its_interval_both_ends_included():
    assert set(agreement().values()) == {True}
    assert set(agreement(allocated=19, process=35).values()) == {True}
    assert set(agreement(allocated=21, process=45).values()) == {True}
    assert agreement(requested=11)["requested"] is False
    assert agreement(allocated=18)["allocated"] is False
    assert agreement(process=46)["process"] is False
    assert agreement(process=None)["process"] is None


def test_of_ranks_the_first_is_judged_and_the_others_are_told():
    found = ranks.judged(RanksMeasured(ranks=(measured(), measured(allocated=7))), PREDICTED)
    assert found.status == "ok"
    assert found.figures[-1].measured == 7 * MIB
    found = ranks.judged(RanksMeasured(ranks=(measured(reserved=31), measured())), PREDICTED)
    assert (found.status, "reserved" in found.reason) == ("failed", True)


def steps(*seconds):
    return tuple((9.0,) * overhead.WARM_UP + (one,) * 5 for one in seconds)


@pytest.mark.parametrize(
    ("metered", "status"), [((1.0, 1.2), "ok"), ((1.06, 1.2), "failed"), ((0.9, 0.9), "ok")]
)
def test_meters_are_too_slow_only_if_they_are_in_every_round(metered, status):
    found = overhead.judged(Overhead(metered_s=steps(*metered), bare_s=steps(1.0, 1.0)))
    assert found.status == status
    ratio = {one.name: one.measured for one in found.figures}
    assert ratio["least of a round"] == min(metered)
    assert ratio["most of a round"] == max(metered)
    assert ratio["bare step"] == 1.0


def test_twelve_cells_each_with_its_arguments():
    assert len(CELLS) == 12
    grids = [grid_of(dict(row.arguments)).cells for row in CELLS]
    assert all(len(cells) == 1 for cells in grids)
    assert len({cells[0].cell_id for cells in grids}) == 12
    assert [dict(cells[0].values) for cells in grids] == [dict(row.arguments) for row in CELLS]


def test_a_card_of_the_catalogue_has_the_memory_that_torch_reports():
    found = gpu_of_card(card())
    assert found.name == find_gpu("l4").name
    assert found.memory_low_bytes == found.memory_bytes == 16 << 30


def test_another_card_is_made_of_what_torch_says_of_it():
    other = card("NVIDIA Thing 9000", (8, 8))
    found = gpu_of_card(other)
    assert not is_known(other)
    assert (found.compute_capability, found.multiprocessors) == ((8, 6), 58)
    assert found.memory_bytes == 16 << 30
    assert gpu_of_card(card("older", (5, 2))).compute_capability == (6, 0)


def on_card(allocated=1, reserved=2, process=3, device=4, **changes):
    names = ("allocated", "reserved", "process", "device")
    values = zip(names, (allocated, reserved, process, device), strict=True)
    memory = {f"peak_{name}_bytes": one * MIB for name, one in values if one is not None}
    return record(measurement=measurement(memory=memory), **changes)


@pytest.mark.parametrize(
    "gpu", [*load_gpus().values(), gpu_of_card(card("other", multiprocessors=402))]
)
@pytest.mark.parametrize(("end", "place"), [("certain", 0), ("possible", 1)])
def test_one_end_of_the_room_of_any_card_is_the_limit(gpu, end, place):
    made = Gpu.model_validate(largest.with_room(gpu, end).model_dump())
    limit = capacity_bytes(made)[place]
    assert limit == largest.limit_bytes(gpu) >= 769 * MIB
    assert limit % (2 * MIB) == MIB


def test_a_record_is_at_fault_if_it_did_not_end_is_untrusted_or_not_nested():
    assert ledger.faults(on_card()) == []
    assert ledger.faults(on_card(process=None)) == []
    assert all("not nested" in one for one in ledger.faults(on_card(reserved=5)))
    assert len(ledger.faults(on_card(reserved=5))) == 5  # in each phase
    assert "nothing was allocated in train" in ledger.faults(on_card(allocated=0))
    assert "steps: odd" in ledger.faults(on_card(untrusted={"steps": "odd"}))
    failure = Failure(phase="train", message="it broke", log_tail="")
    crashed = record(status="crashed", measurement=None, failure=failure)
    assert ledger.faults(crashed) == ["a cell ended as crashed: it broke"]
