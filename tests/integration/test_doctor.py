"""`ftbench doctor` from end to end: here, and on a fake card with the real binding of NVML on a stub."""

import json
import os
import subprocess
import sys

import pytest

from tests.fake_cuda.environment import rehearsal

pytestmark = pytest.mark.integration


def doctor(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "ftbench", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    data = json.loads(done.stdout)
    return done.returncode, {one["name"]: one for one in data["findings"]}, data["facts"]


def test_a_card_with_its_memory_clocks_and_energy(tmp_path):
    code, found, facts = doctor(tmp_path, **rehearsal(tmp_path))
    assert code == 0
    (card,) = facts["torch"]["cards"]
    assert card["process_bytes"] > 0
    states = {name: one["state"] for name, one in found.items() if name.startswith("GPU")}
    assert len(states) == 5
    assert set(states.values()) == {"fine"}


def test_a_machine_without_a_card_can_run(tmp_path):
    code, found, facts = doctor(tmp_path, **os.environ | {"LD_LIBRARY_PATH": str(tmp_path)})
    if facts["driver"]["cards"]:
        pytest.skip("there is a card")
    assert code == 0
    assert found["GPU"]["state"] == "missing"
    assert found["torch"]["state"] == found["packages"]["state"] == "fine"


def test_without_torch_nothing_can_be_run(tmp_path):
    """A torch that cannot be imported, as after a broken installation."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open')")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    code, found, _ = doctor(tmp_path, **os.environ | {"PYTHONPATH": path})
    assert code == 1
    assert found["torch"]["state"] == "missing"
    assert "libtorch_cpu.so: cannot open" in found["torch"]["found"]
