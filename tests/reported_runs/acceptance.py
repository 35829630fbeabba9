"""Whether the real command line accepts a command, and predicts something with it."""

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 300
_LAST_LINES = 4


@dataclasses.dataclass(frozen=True)
class Answer:
    """The peak of the tensors that a command printed, in bytes; or what was wrong."""

    peak_bytes: int | None
    problem: str = ""


def ask(command: tuple[str, ...]) -> Answer:
    """Return the answer of a command, `ftbench ...`, which is run as a process of its own."""
    words = [sys.executable, "-m", *command, "--json"]
    folder = str(ROOT / "bench")
    path = os.pathsep.join((folder, *filter(None, [os.environ.get("PYTHONPATH")])))
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, f"no answer after {TIME_LIMIT_S} s")
    if done.returncode:
        return Answer(None, " | ".join(done.stderr.strip().splitlines()[-_LAST_LINES:]))
    return answer_of(done.stdout)


def answer_of(printed: str) -> Answer:
    """Return the peak in the document that a command printed; it must have one cell, and that a peak."""
    cells = json.loads(printed)["cells"]
    if len(cells) != 1:
        return Answer(None, f"{len(cells)} cells in place of one")
    peak = cells[0]["tensors"]["value_bytes"]
    return Answer(peak) if peak else Answer(None, "a peak of no bytes")


def ask_all(commands: list[tuple[str, ...]], processes: int) -> dict[tuple[str, ...], Answer]:
    """Return the answer of each distinct command; so many run at once."""
    distinct = list(dict.fromkeys(commands))
    with ThreadPoolExecutor(processes) as pool:
        return dict(zip(distinct, pool.map(ask, distinct), strict=True))
