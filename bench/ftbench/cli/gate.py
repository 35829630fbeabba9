"""The command that guards memory: it compares new figures with accepted ones, for CI."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, BaselineError, FtbenchError
from ftbench.cli.completion import profiles
from ftbench.cli.options import (
    JsonOption,
    OnlyOption,
    SetOption,
    gpus_of,
    open_console,
    size_of,
)
from ftbench.cli.subjects import (
    OF_PROFILES,
    ArgOption,
    GpusOption,
    ProgramSubject,
    StepsOption,
    Subject,
    baseline_name,
    shown_name,
    subject_of,
)

if TYPE_CHECKING:
    from ftbench.gate.result import GateResult

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
    as_json: JsonOption = False,
) -> None:
    """Compare predicted memory with the baseline, for CI.

    The exit code is 0 if nothing moved, 1 if something moved, and 2 if that cannot be judged.

    With --runs, memory and accuracy of measured runs are compared with those in the baseline; with --runs and
    --base, memory, accuracy and time are compared with those of other runs. On GitHub Actions, the verdict
    is also shown on the run's summary page.
    """
    allowed = size_of(tolerance, "--tolerance") or 0
    asked = _Asked(
        subject=subject,
        overrides=overrides,
        only=only,
        arguments=arguments,
        steps=steps,
        gpus=several,
        file=file,
        runs=runs,
        base=base,
        require_time=require_time,
        tolerance_bytes=allowed,
        across_versions=across_versions,
    )
    try:
        result = _judge(asked)
    except FtbenchError as error:  # files and summaries show it, too
        result = _nothing_to_judge(subject, error)
    if as_json:
        from ftbench.report.commands.gate import gate_json

        print(json.dumps(gate_json(result), indent=1))
    else:
        show_result(result)
    _write(result, junit, comment, html)
    raise typer.Exit(result.exit_code)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The arguments of `gate`: the figures to compare, and the tolerance."""

    subject: str
    overrides: list[str] | None
    only: str | None
    arguments: list[str] | None
    steps: int | None
    gpus: str | None
    file: Path | None
    runs: Path | None
    base: Path | None
    require_time: bool
    tolerance_bytes: int
    across_versions: bool

    @property
    def baseline(self) -> Path:
        """Return the path of the baseline."""
        from ftbench.gate.baseline_file import baseline_path

        return self.file or baseline_path(baseline_name(self.subject))


def _judge(asked: _Asked) -> GateResult:
    if asked.subject.endswith(".json"):
        return _judge_benchmarks(asked)
    return _judge_predictions(asked) if asked.runs is None else _judge_runs(asked)


def _refuse_options(what: str, given: Mapping[str, object]) -> None:
    """Raise BaselineError if an option was given that does not apply to this comparison."""
    for option, value in given.items():
        if value:
            raise BaselineError(f"{option} does not apply to {what}", where="gate")


def _judge_benchmarks(asked: _Asked) -> GateResult:
    """Return the comparison of the peaks in two JSON files of pytest-benchmark."""
    from ftbench.gate.compare import compare_peaks
    from ftbench.gate.pytest_benchmark import read_peaks

    others: dict[str, object] = {
        "--runs": asked.runs,
        "--require-time": asked.require_time,
        "--baseline": asked.file,
    }
    of_subjects = {"--arg": asked.arguments, "--steps": asked.steps}
    others |= of_subjects | {"--set": asked.overrides, "--only": asked.only}
    _refuse_options("benchmarks", others)
    file = Path(asked.subject)
    if asked.base is None:
        raise BaselineError("nothing to compare with", where=str(file), expected="--base OLD.json")
    return compare_peaks(
        file.stem,
        read_peaks(asked.base),
        read_peaks(file),
        tolerance_bytes=asked.tolerance_bytes,
        across_versions=asked.across_versions,
    )


def _judge_runs(asked: _Asked) -> GateResult:
    """Return the comparison of measured runs with those of --base, or with those in the baseline."""
    from ftbench.gate.compare_runs import compare_measured
    from ftbench.gate.measured_runs import read_kept_runs, read_runs

    assert asked.runs is not None
    both = {"--baseline with --base": asked.file and asked.base}
    _refuse_options("measured runs", both | {"--tolerance": asked.tolerance_bytes})
    subject = _subject(asked)
    if isinstance(subject, ProgramSubject):
        raise BaselineError(f"--runs {OF_PROFILES}", where="gate", got=subject.name)
    grid, chosen = subject.whole, subject.grid.cells if asked.only else None
    before = (
        read_runs(asked.base, grid.cells, chosen)
        if asked.base
        else read_kept_runs(asked.baseline, grid.cells, chosen)
    )
    return compare_measured(
        shown_name(asked.subject),
        before,
        read_runs(asked.runs, grid.cells, chosen, wanted=chosen or grid.cells),
        across_versions=asked.across_versions,
        require_time=asked.require_time,
    )


def _judge_predictions(asked: _Asked) -> GateResult:
    """Return the comparison of predictions with the baseline."""
    from ftbench.gate.baseline_file import read_baseline
    from ftbench.gate.compare import compare

    _refuse_options("predictions", {"--base": asked.base, "--require-time": asked.require_time})
    before = read_baseline(asked.baseline)
    gpus, subject = gpus_of(list(before.architectures)), _subject(asked)
    found, refused = subject.baseline(gpus, before.attention_kernel)
    return compare(
        before.without(subject.left_out()),
        found,
        tolerance_bytes=asked.tolerance_bytes,
        across_versions=asked.across_versions,
        refused=refused,
    )


def _subject(asked: _Asked) -> Subject:
    return subject_of(
        asked.subject,
        asked.only,
        overrides=asked.overrides,
        arguments=asked.arguments,
        steps=asked.steps,
        gpus=asked.gpus,
    )


def _nothing_to_judge(subject: str, error: FtbenchError) -> GateResult:
    from ftbench.gate.reasons import Failed
    from ftbench.gate.result import GateResult

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


def show_result(result: GateResult, heading: str | None = None, **accept: str) -> None:
    """Print a result: a heading or the verdict, and the changes with their causes."""
    from ftbench.report.commands.gate import changes_table, headline, lines
    from ftbench.report.render.terminal import show_table

    console = open_console()
    style = "bold red" if result.exit_code == EXIT_FINDING and not heading else "bold"
    console.print(heading or headline(result), style=style, soft_wrap=True)
    if result.changes:
        show_table(console, changes_table(result.changes))
    for line in lines(result, **accept):
        console.print(line, soft_wrap=True, markup=False)
