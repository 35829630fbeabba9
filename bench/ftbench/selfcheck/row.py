"""The process of one row: `python -m ftbench.selfcheck.row NAME FOLDER` writes FOLDER/NAME/answer.json."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ftbench.base.errors import FtbenchError
from ftbench.base.files import write_atomically
from ftbench.records.selfcheck import Machine, RowAnswer
from ftbench.selfcheck.rows import BY_NAME, Kind, Row
from ftbench.selfcheck.run import ANSWER_FILE, LOG_FILE, MACHINE_FILE
from ftbench.selfcheck.setting import Setting

# Imported when a row needs it: each with what it brings.
_CHECKS: dict[Kind, str] = {
    "cell": "ftbench.selfcheck.cells",
    "largest": "ftbench.selfcheck.largest",
    "ledger": "ftbench.selfcheck.ledger",
    "calibrate": "ftbench.selfcheck.commands",
    "tests": "ftbench.selfcheck.commands",
    "overhead": "ftbench.selfcheck.overhead",
    "ranks": "ftbench.selfcheck.ranks",
}
Check = Callable[[Row, Setting], RowAnswer]


def main(name: str, folder: str) -> None:
    """Run a row and write its answer; an error is a failed row, and its traceback is in the log."""
    row = BY_NAME[name]
    page = Path(folder)
    machine = Machine.model_validate_json((page / MACHINE_FILE).read_bytes())
    setting = Setting(machine=machine, folder=page / name)
    answer = _with_files(checked(row, setting), page, name)
    write_atomically(page / name / ANSWER_FILE, answer.model_dump_json(indent=1) + "\n")


def checked(row: Row, setting: Setting) -> RowAnswer:
    """Return what the row's check found."""
    try:
        check: Check = importlib.import_module(_CHECKS[row.kind]).check
        return check(row, setting)
    except FtbenchError as error:
        traceback.print_exc()
        return RowAnswer(status="failed", reason=" ".join(str(error).split()))
    except Exception as error:
        traceback.print_exc()
        return RowAnswer(status="failed", reason=f"{type(error).__name__}: {error}")


def _with_files(answer: RowAnswer, page: Path, name: str) -> RowAnswer:
    """Return a failed answer with the files to send: relative names, of those that are there."""
    if answer.status != "failed":
        return answer
    names = (MACHINE_FILE, f"{name}/{ANSWER_FILE}", f"{name}/{LOG_FILE}")
    logs = [path.relative_to(page).as_posix() for path in sorted((page / name).glob("*.log"))]
    own = [f"{name}/{file}" for file in answer.send]
    send = tuple(dict.fromkeys((*names, *logs, *own)))
    return answer.model_copy(update={"send": send})


if __name__ == "__main__":
    main(*sys.argv[1:])
