"""The real NVML binding and our reading of it, against a compiled stub of the driver's library."""

import json
import subprocess
import sys

import pytest

GIB = 2**30
READ = """
import json, sys
from ftbench.worker.measure.meters.nvml import NvmlCard
card = NvmlCard(sys.argv[1], int(sys.argv[2]))
readings = [card.read()._asdict() | {"energy": card.energy_mj()} for _ in range(int(sys.argv[3]))]
print(json.dumps([readings, card.gone, card.sources()]))
"""
OURS = 4321


def run(code, *arguments):
    """Run a program in a process of its own, whose driver library is the stub."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read(uuid="GPU-a", times=1):
    readings, gone, sources = run(READ, uuid, OURS, times)
    return readings if times > 1 else readings[0], gone, sources


def test_process_and_device_memory(driver):
    driver(
        "card GPU-a", f"frame used={3 * GIB} processes={OURS}:{2 * GIB} energy=1500 reasons=0x24"
    )
    reading, gone, sources = read()
    assert (reading["device_bytes"], reading["process_bytes"]) == (3 * GIB, 2 * GIB)
    assert reading["energy"] == 1500
    assert reading["slowing"] == ["thermal limit of the driver"]  # the power cap is no fault
    assert (reading["others"], reading["absent"], gone) == ({}, {}, None)
    assert "v2" in sources["peak_device_bytes"]


def test_the_drivers_own_reservation_is_counted_only_where_version_2_is_not_known(driver):
    driver("v2 no", "card GPU-a", f"frame used={GIB}")
    (first, second), _, sources = read(times=2)
    assert first["device_bytes"] == second["device_bytes"] == GIB + 100 * 2**20
    assert "v1" in sources["peak_device_bytes"]
    assert "counts what the driver keeps for itself as used" in sources["peak_device_bytes"]


def test_clock_reasons_under_their_name_until_2023(driver):
    driver("events no", "card GPU-a", "frame reasons=0x8")
    assert read()[0]["slowing"] == ["hardware slowdown"]


def test_an_idle_card_and_clocks_that_somebody_set_slow_nothing(driver):
    driver("card GPU-a", "frame reasons=0x103")
    assert read()[0]["slowing"] == []


def test_cards_in_another_order_than_cudas_are_told_apart_by_uuid(driver):
    driver("card GPU-b", f"frame used={GIB}", "card GPU-a", f"frame used={5 * GIB}")
    assert read("GPU-a")[0]["device_bytes"] == 5 * GIB
    assert read("GPU-b")[0]["device_bytes"] == GIB


def test_a_pid_that_the_driver_does_not_know(driver):
    driver("card GPU-a", f"frame used={3 * GIB} processes=77:{2 * GIB}")
    reading, _, _ = read()
    assert reading["process_bytes"] is None
    assert "container" in reading["absent"]["peak_process_bytes"]
    assert reading["device_bytes"] == 3 * GIB
    assert reading["others"] == {"77": 2 * GIB}


def test_no_per_process_figure_as_under_mig_and_wsl(driver):
    driver("card GPU-a", f"frame used={3 * GIB} processes={OURS}:none,77:none")
    reading, _, _ = read()
    assert reading["process_bytes"] is None
    assert "MIG" in reading["absent"]["peak_process_bytes"]
    assert reading["others"] == {"77": None}


def test_nobody_on_the_card(driver):
    driver("card GPU-a", "frame used=0 processes=")
    reading, _, _ = read()
    assert (reading["device_bytes"], reading["others"]) == (0, {})


def test_a_card_without_an_energy_counter(driver):
    driver("card GPU-a", "frame used=1 energy=none")
    assert read()[0]["energy"] is None


def test_an_error_that_passes_costs_one_reading(driver):
    driver("card GPU-a", f"frame used={GIB}", "frame error=10", "frame error=0")
    (_, failed, after), gone, sources = read(times=3)
    assert failed["device_bytes"] is None
    assert "Timeout" in failed["absent"]["peak_device_bytes"]
    assert (after["device_bytes"], gone) == (GIB, None)
    assert "v2" in sources["peak_device_bytes"]


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_card_stays_lost(driver, code):
    driver("card GPU-a", f"frame used={GIB} energy=5", f"frame error={code}", "frame error=0")
    (first, *later), gone, _ = read(times=3)
    assert first["device_bytes"] == GIB
    assert "lost" in gone
    for reading in later:
        assert (reading["device_bytes"], reading["energy"], reading["others"]) == (None,) * 3
        assert reading["absent"] == {"peak_device_bytes": gone, "peak_process_bytes": gone}


def test_a_card_that_is_not_there(driver):
    driver("card GPU-a", "frame used=1")
    reading, gone, _ = read("GPU-other")
    assert "Not Found" in gone
    assert reading["absent"] == {"peak_device_bytes": gone, "peak_process_bytes": gone}


def test_no_driver(driver):
    driver()
    assert read()[1] == "NVML: Driver Not Loaded"


CHOICE = """
import json
from ftbench.plan.devices import choose_device
print(json.dumps(choose_device("auto").model_dump()))
"""


def test_the_parent_finds_a_card_by_uuid_without_torch(driver, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver("card GPU-stub-0", "frame used=1", "card GPU-stub-1", "frame used=1")
    assert run(CHOICE) == {"kind": "cuda", "devices": ["GPU-stub-0"]}


def test_without_a_driver_the_parent_takes_the_cpu(driver):
    driver()
    assert run(CHOICE) == {"kind": "cpu", "devices": []}
