import json
import os
import subprocess
import sys

import pytest


def test_it_ends_where_its_stdin_does():
    command = [
        sys.executable,
        "-m",
        "ftbench.worker.measure.sampler",
        str(os.getpid()),
        "--pss",
    ]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60).returncode == 0


def test_it_does_not_outlive_a_worker_that_was_gone_at_once():
    command = [sys.executable, "-m", "ftbench.worker.measure.sampler", "1", "--pss"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 1


@pytest.mark.parametrize("extra", ["", "import ftbench.worker.measure.meters.nvml"])
def test_it_imports_nothing_large(extra):
    code = f"import json, sys, ftbench.worker.measure.sampler\n{extra}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "pydantic", "numpy", "ftbench.records.record"}
    assert ("pynvml" in loaded) == bool(extra)
