"""A driver's library that answers from a script (nvml_stub.c), for the real NVML binding."""

import subprocess
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("nvml_stub.c")


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory):
    """Return the folder that holds the compiled stub."""
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(target), str(STUB)], check=True)
    return folder


@pytest.fixture
def driver(stub_library, tmp_path, monkeypatch):
    """Return a function that gives processes started from now on a driver with this script."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stub_library))

    def install(*lines):
        script = tmp_path / "driver.txt"
        script.write_text("\n".join(lines))
        monkeypatch.setenv("STUB_SCRIPT", str(script))

    return install
