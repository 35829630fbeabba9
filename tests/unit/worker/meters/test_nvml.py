"""The real NVML binding and our meter, against a compiled stub of the driver's library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("nvml_stub.c")
PROGRAM = """
import json, os, sys
os.environ.setdefault("STUB_PID", str(os.getpid()))
from bench.worker.meters.nvml import NvmlMemory
meter = NvmlMemory(sys.argv[1])
meter.start()
print(json.dumps([meter.read(), meter.absent()]))
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(STUB)], check=True)
    return folder


def with_stub(library, code, *arguments, **stub):
    """Run a program in a process whose driver library is the stub."""
    variables = {f"STUB_{name.upper()}": str(value) for name, value in stub.items()}
    environment = os.environ | {"LD_LIBRARY_PATH": str(library)} | variables
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read(library, uuid="GPU-stub-0", **stub):
    return with_stub(
        library, PROGRAM, uuid, **({"cards": 2, "used": 3 << 30, "process": 2 << 30} | stub)
    )


def test_process_and_device_memory(library):
    figures, absent = read(library)
    assert figures == {"peak_device_bytes": 3 << 30, "peak_process_bytes": 2 << 30}
    assert absent == {}


def test_the_drivers_own_reservation_is_not_counted_as_used(library):
    assert (
        read(library, used=1 << 30)[0]["peak_device_bytes"] == 1 << 30
    )  # version 1 says 100 MiB more


def test_a_container_whose_pid_the_driver_does_not_know(library):
    figures, absent = read(library, pid=1)
    assert "peak_process_bytes" not in figures
    assert "container" in absent["peak_process_bytes"]
    assert figures["peak_device_bytes"] == 3 << 30


def test_no_per_process_figure_as_under_mig_and_wsl(library):
    figures, absent = read(library, process="none")
    assert "peak_process_bytes" not in figures
    assert "MIG" in absent["peak_process_bytes"]


def test_a_card_that_is_not_there(library):
    figures, absent = read(library, uuid="GPU-other")
    assert figures == {}
    assert set(absent) == {"peak_process_bytes", "peak_device_bytes"}
    assert "Not Found" in absent["peak_device_bytes"]


def test_no_driver(library):
    figures, absent = read(library, cards=0)
    assert figures == {}
    assert absent["peak_device_bytes"].startswith("NVML: ")


CHOICE = """
import json
from bench.devices import choose_device
print(json.dumps(choose_device("auto").model_dump()))
"""


def test_the_parent_finds_a_card_by_uuid_without_torch(library):
    assert with_stub(library, CHOICE, cards=2) == {"kind": "cuda", "visible": "GPU-stub-0"}


@pytest.mark.gpu
def test_a_real_card():
    import torch

    from bench.worker.device import describe
    from bench.worker.meters.nvml import NvmlMemory

    block = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    meter = NvmlMemory(describe(torch.device("cuda", 0)).uuid)
    figures = meter.read()
    assert figures["peak_device_bytes"] >= block.numel()
    assert figures.get("peak_process_bytes", block.numel()) >= block.numel()
