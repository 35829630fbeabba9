"""Runs the rows one after another, each in a process of its own with a time limit, within one budget.

A row that crashes, hangs or raises an error fails; the next one runs. After each, the page is given to the caller.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from ftbench import __version__
from ftbench.base.files import remove_link, write_atomically
from ftbench.base.redaction import redact_file
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.outcome import require_answer
from ftbench.records.selfcheck import (
    Machine,
    MachineRequest,
    RowAnswer,
    Selfcheck,
    SelfcheckRow,
)
from ftbench.selfcheck.packages import missing, versions
from ftbench.selfcheck.rows import ROWS, Row

BUDGET_S = 480.0
ROW = "ftbench.selfcheck.row"
LOOK = "ftbench.worker.selfcheck.machine"
MACHINE_FILE, ANSWER_FILE, LOG_FILE = "machine.json", "answer.json", "row.log"
_LOOK_S = 90.0
_GRACE_S = 5.0  # between SIGTERM, after which a row ends its workers, and SIGKILL


def look(folder: Path) -> Machine:
    """Return the machine, as a worker sees it that sees all cards; raises WorkerError if torch can use none."""
    engine = LocalEngine("spawn", {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"})
    log = folder / "machine.log"
    request = MachineRequest().model_dump_json()
    outcome = engine.run(LOOK, request, log_file=log, timeout_s=_LOOK_S, on_progress=lambda _: None)
    found = require_answer(outcome, "machine", Machine, log)
    found = found.model_copy(update={"versions": versions()})
    write_atomically(folder / MACHINE_FILE, found.model_dump_json(indent=1) + "\n")
    return found


def left_out(row: Row, machine: Machine) -> str:
    """Return the reason for which a row cannot run here; empty if it can."""
    if lacking := missing(row.needs, machine.versions):
        return f"needs {', '.join(lacking)}"
    if len(machine.cards) < row.cards:
        return f"needs {row.cards} cards, there is {len(machine.cards)}"
    return ""


def run_rows(
    folder: Path,
    machine: Machine,
    *,
    on_row: Callable[[Selfcheck], None],
    rows: Sequence[Row] = ROWS,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> Selfcheck:
    """Return the page after all rows; `on_row` gets it after each."""
    began = clock()
    done: list[SelfcheckRow] = []

    def page(*, complete: bool) -> Selfcheck:
        return Selfcheck(
            ftbench=__version__,
            machine=machine,
            rows=tuple(done),
            budget_s=budget_s,
            seconds=clock() - began,
            complete=complete,
        )

    for row in rows:
        started = clock()
        left = budget_s - (started - began)
        answer = _answer(row, folder, machine, left)
        spent = clock() - started
        done.append(SelfcheckRow(name=row.name, about=row.about, seconds=spent, answer=answer))
        on_row(page(complete=len(done) == len(rows)))
    return page(complete=True)


def _answer(row: Row, folder: Path, machine: Machine, left_s: float) -> RowAnswer:
    if reason := left_out(row, machine):
        return RowAnswer(status="left out", reason=reason)
    if left_s < row.least_s:
        return RowAnswer(status="left out", reason=f"time: {max(left_s, 0):.0f} s were left")
    return in_process(row, folder, min(row.limit_s, left_s))


def in_process(row: Row, folder: Path, limit_s: float) -> RowAnswer:
    """Return the answer of a row's process; one that has none, or takes longer than the limit, has failed."""
    own = folder / row.name
    own.mkdir(parents=True, exist_ok=True)
    file, log = own / ANSWER_FILE, own / LOG_FILE
    for place in (file, log):
        remove_link(place)
        place.unlink(missing_ok=True)
    command = [sys.executable, "-m", ROW, row.name, str(folder)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        with _ended_with(process):
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return _failed(f"did not end within {limit_s:.0f} s", own, folder)
    redact_file(log)
    try:
        return RowAnswer.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return _failed(f"its process ended without an answer, with exit code {code}", own, folder)


@contextlib.contextmanager
def _ended_with(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process and its group with the body, also after Ctrl-C; its workers die with it."""
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)


def _failed(reason: str, own: Path, folder: Path) -> RowAnswer:
    files = sorted(path.relative_to(folder).as_posix() for path in own.glob("*.log"))
    return RowAnswer(status="failed", reason=reason, send=(MACHINE_FILE, *files))
