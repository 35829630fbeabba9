"""The environment of a rehearsal: every Python process in it has the fake card, and a driver that knows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import ftbench
from ftbench.base.units import GIB
from tests.fake_cuda.build import CACHE

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).with_name("site")
STUB = ROOT / "tests/unit/worker/measure/meters/nvml_stub.c"
UUID = "GPU-00000000-0000-0000-0000-00000000fa4e"
# What the driver says of a process whose figures no test looks at: more than it reserves.
_USED, _DEVICE = 4 * GIB, 5 * GIB


def rehearsal(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a rehearsal whose files are in a folder."""
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(STUB)]
        subprocess.run(command, check=True)
    script = folder / "driver.txt"
    processes = f"processes=self:{_USED},parent:{_USED}"
    script.write_text(f"card {UUID}\nframe used={_DEVICE} {processes} energy=0 reasons=0\n")
    paths = (SITE, ROOT, Path(ftbench.__file__).parents[1])
    without = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return without | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "LD_LIBRARY_PATH": str(folder),
        "STUB_SCRIPT": str(script),
        "TMPDIR": str(folder),
        CACHE: tempfile.gettempdir(),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        **variables,
    }
