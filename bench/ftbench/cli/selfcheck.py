"""`ftbench selfcheck`: all that only a card can tell of ftbench, in at most eight minutes and on one page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, ProfileError

if TYPE_CHECKING:
    from ftbench.records.selfcheck import Machine, Selfcheck
    from ftbench.selfcheck.rows import Row

OutOption = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="The folder of the page and of what it refers to."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ROW", help="Run this row only. Repeatable.  [default: all]"),
]
BudgetOption = Annotated[
    float,
    typer.Option(
        "--budget", metavar="SECONDS", min=1, help="A row that no longer fits is left out."
    ),
]
# What every row needs, by the name that Python imports, and the one that pip installs.
_LEAST = {
    "pydantic": "pydantic",
    "rich": "rich",
    "numpy": "numpy",
    "pynvml": "nvidia-ml-py",
    "torch": "torch",
}


def selfcheck(
    out: OutOption = Path("selfcheck"), only: OnlyOption = None, budget: BudgetOption = 480.0
) -> None:
    """Check ftbench on this machine's card, in at most eight minutes and without a network.

    Small loops with their prediction beside the allocator and the driver, the largest batch, the ledger, a
    calibration, the overhead. Writes selfcheck.json and selfcheck.md after each row. The exit code is 1 if a row
    failed.
    """
    _require_packages()
    from ftbench.selfcheck.run import look, run_rows

    rows = _rows(only)
    _require_card()
    _make_folder(out)
    machine = look(out)
    _tell(machine, rows)

    def on_row(page: Selfcheck) -> None:
        _write(page, out)
        _tell_row(page)

    page = run_rows(out, machine, on_row=on_row, rows=rows, budget_s=budget)
    _end(page, out)


def _require_packages() -> None:
    lacking = [name for module, name in _LEAST.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise ProfileError(
            "packages that every row needs are missing",
            where="selfcheck",
            got=", ".join(lacking),
            hint=f"pip install {' '.join(lacking)}",
        )


def _rows(only: list[str] | None) -> tuple[Row, ...]:
    """Return the rows that are named, in their order; all if none is. Raises ProfileError."""
    from ftbench.base.errors import nearest_name
    from ftbench.selfcheck.rows import BY_NAME, ROWS

    for name in only or ():
        if name not in BY_NAME:
            raise ProfileError(
                "no such row",
                where="--only",
                got=name,
                expected=", ".join(BY_NAME),
                nearest=nearest_name(name, BY_NAME),
            )
    return tuple(row for row in ROWS if not only or row.name in only)


def _require_card() -> None:
    from ftbench.plan.devices import choose_device

    if choose_device("auto").kind == "cpu":
        raise ProfileError(
            "no CUDA device: the driver names no card that this process may use",
            where="selfcheck",
            hint="without a card, `nox -s tests` checks all that does not need one",
        )


def _make_folder(out: Path) -> None:
    from ftbench.base.files import unwritable

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error


def _tell(machine: Machine, rows: tuple[Row, ...]) -> None:
    """Print the machine, and which rows its missing packages and cards leave out."""
    from ftbench import __version__
    from ftbench.records.selfcheck import Selfcheck
    from ftbench.report.commands.selfcheck import machine_lines
    from ftbench.selfcheck.run import left_out

    page = Selfcheck(
        ftbench=__version__, machine=machine, rows=(), budget_s=0, seconds=0, complete=False
    )
    for line in machine_lines(page):
        print(line, flush=True)
    for row in rows:
        if reason := left_out(row, machine):
            print(f"left out: {row.name} {reason}", flush=True)


def _tell_row(page: Selfcheck) -> None:
    from ftbench.report.commands.selfcheck import row_line

    print(row_line(page.rows[-1]), flush=True)


def _write(page: Selfcheck, out: Path) -> None:
    from ftbench.base.files import write_atomically
    from ftbench.report.commands.selfcheck import selfcheck_markdown

    write_atomically(out / "selfcheck.json", page.model_dump_json(indent=1) + "\n")
    write_atomically(out / "selfcheck.md", selfcheck_markdown(page))


def _end(page: Selfcheck, out: Path) -> None:
    """Print the verdict, and end with exit code 1 if a row failed."""
    from ftbench.report.commands.selfcheck import summary, to_send

    print(f"{summary(page)}; wrote {out / 'selfcheck.md'}")
    if page.failed:
        print("to send, from the same folder:")
        for line in to_send(page):
            print(f"  {line}")
        raise typer.Exit(EXIT_FINDING)
