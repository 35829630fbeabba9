"""The command that guards memory: it compares new figures with accepted ones, for CI."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, FtbenchError
from ftbench.cli.completion import profiles
from ftbench.cli.options import (
    JsonOption,
    NoCacheOption,
    OnlyOption,
    SetOption,
    open_console,
    size_of,
)
from ftbench.cli.subjects import ArgOption, GpusOption, StepsOption, subject_of
from ftbench.verbs.subjects import shown_name

if TYPE_CHECKING:
    from ftbench.gating.result import GateResult

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="FILE",
        help="The baseline's file.  [default: reports/baselines/NAME.json]",
    ),
]

RunsOption = Annotated[
    Path | None,
    typer.Option("--runs", metavar="RUN_DIR", help="A directory with runs of `ftbench run`."),
]

GatedArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE|FILE.py:FACTORY",
        help="A profile's name or TOML file; a function that builds a training step; or a JSON file of"
        " pytest-benchmark.",
        autocompletion=profiles,
    ),
]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="Compare with this instead of a baseline: a run directory (with --runs),"
        " or a JSON file of pytest-benchmark.",
    ),
]
TimeOption = Annotated[
    bool,
    typer.Option(
        "--require-time",
        help="With --runs: exit with 2 if the runs do not allow a verdict on time.",
    ),
]
ToleranceOption = Annotated[
    str,
    typer.Option(
        "--tolerance", metavar="SIZE", help="The largest accepted change of a peak, such as 1MiB."
    ),
]
AcrossVersionsOption = Annotated[
    bool,
    typer.Option("--across-versions", help="Compare even if versions of the libraries differ."),
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")
]
CommentOption = Annotated[
    Path | None,
    typer.Option("--comment", metavar="FILE", help="Also write a Markdown comment."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write an HTML page.")
]


def gate(
    subject: GatedArgument,
    file: FileOption = None,
    runs: RunsOption = None,
    base: BaseOption = None,
    require_time: TimeOption = False,
    tolerance: ToleranceOption = "0B",
    across_versions: AcrossVersionsOption = False,
    overrides: SetOption = None,
    only: OnlyOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    several: GpusOption = None,
    junit: JunitOption = None,
    comment: CommentOption = None,
    html: HtmlOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare predicted memory with the baseline, for CI.

    The exit code is 0 if nothing moved, 1 if something moved, and 2 if that cannot be judged.

    With --runs, memory and accuracy of measured runs are compared with those in the baseline; with --runs and
    --base, memory, accuracy and time are compared with those of other runs. On GitHub Actions, the verdict
    is also shown on the run's summary page.
    """
    from ftbench.verbs.gate import GateQuestion, judge, update_command  # takes half a second

    of_subject = {"--set": overrides, "--arg": arguments, "--steps": steps, "--gpus": several}
    question = GateQuestion(
        subject=subject,
        make_subject=lambda: subject_of(
            subject,
            only,
            overrides=overrides,
            arguments=arguments,
            steps=steps,
            gpus=several,
            cached=not no_cache,
        ),
        given=of_subject | {"--only": only},
        chosen=bool(only),
        file=file,
        runs=runs,
        base=base,
        require_time=require_time,
        tolerance_bytes=size_of(tolerance, "--tolerance") or 0,
        across_versions=across_versions,
        accept=update_command(subject, of_subject | {"--baseline": file, "--runs": runs}),
    )
    try:
        result = judge(question)
    except FtbenchError as error:  # files and summaries show it, too
        result = _nothing_to_judge(subject, error)
    (_print_json if as_json else show_result)(result)
    _write(result, junit, comment, html)
    raise typer.Exit(result.exit_code)


def _print_json(result: GateResult) -> None:
    from ftbench.report.commands.gate import gate_json

    print(json.dumps(gate_json(result), indent=1))


def _nothing_to_judge(subject: str, error: FtbenchError) -> GateResult:
    from ftbench.gating.reasons import Failed
    from ftbench.gating.result import GateResult

    return GateResult(shown_name(subject), (), unjudged=(Failed(str(error)),))


def _write(result: GateResult, junit: Path | None, comment: Path | None, html: Path | None) -> None:
    """Write the requested files, and the job's summary if the CI service has one.

    A file that cannot be written is told on stderr: the verdict stands, and its exit code.
    """
    from ftbench.base.files import write_atomically
    from ftbench.report.commands import gate as texts
    from ftbench.report.render import step_summary

    def page() -> str:
        from ftbench.report.render.html import render

        return render(texts.gate_document(result))

    wanted: tuple[tuple[Path | None, Callable[[], str]], ...] = (
        (junit, lambda: texts.gate_junit(result)),
        (comment, lambda: texts.gate_markdown(result)),
        (html, page),
    )
    for file, text in wanted:
        if file is not None:
            with _told(f"{file} was not written"):
                write_atomically(file, text())
    if os.environ.get(step_summary.VARIABLE):
        with _told("no step summary"):
            step_summary.append(texts.gate_document(result))


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (FtbenchError, OSError) as error:
        print(f"ftbench: {what}: {error}", file=sys.stderr)


def show_result(result: GateResult, heading: str | None = None) -> None:
    """Print a result: a heading or the verdict, and the changes with their causes."""
    from ftbench.report.commands.gate import changes_table, headline, lines
    from ftbench.report.render.terminal import show_table

    console = open_console()
    style = "bold red" if result.exit_code == EXIT_FINDING and not heading else "bold"
    console.print(heading or headline(result), style=style, soft_wrap=True)
    if result.changes:
        show_table(console, changes_table(result.changes))
    for line in lines(result):
        console.print(line, soft_wrap=True, markup=False)
