"""The whole ledger on a real card. Runs by itself where there is one; else it is left out, and counted."""

import pytest

from tests.integration.conftest import run

pytestmark = [pytest.mark.integration, pytest.mark.gpu]


@pytest.fixture(scope="module")
def on_card(tmp_path_factory):
    return run("smoke", tmp_path_factory.mktemp("card") / "run", run__device='"cuda"')


def test_every_reading_is_there_and_nested(on_card):
    assert on_card.process.returncode == 0, on_card.process.stdout + on_card.process.stderr
    for record in on_card.records:
        measured = record.measurement
        assert record.untrusted == {}
        (rank,) = measured.ranks
        assert rank.model_device == rank.device.uuid == rank.sampling.device_uuid
        for phase in measured.phases.values():
            memory = phase.memory
            nested = [memory.peak_allocated_bytes, memory.peak_reserved_bytes]
            # Not in a container whose PIDs the driver does not know, under MIG, or in WSL.
            if memory.peak_process_bytes is not None:
                nested += [memory.peak_process_bytes]
                assert memory.context_bytes > 0
            nested += [memory.peak_device_bytes]
            assert nested == sorted(nested)
            assert nested[0] > 0


def test_absent_figures_have_their_reason(on_card):
    for record in on_card.records:
        measured = record.measurement
        for name, value in measured.memory:
            assert value is not None or f"memory.{name}" in measured.absent


def test_allocated_memory_does_not_move_from_run_to_run(on_card, tmp_path):
    again = run("smoke", tmp_path / "again", run__device='"cuda"')
    peaks = [
        {r.cell_id: r.measurement.memory.peak_allocated_bytes for r in one.records}
        for one in (on_card, again)
    ]
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-3)


def test_the_sampler_costs_less_than_one_per_cent(on_card):
    assert all(r.measurement.sampling.cpu_share < 0.01 for r in on_card.records)
