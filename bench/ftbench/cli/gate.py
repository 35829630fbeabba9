"""Commands that guard memory: what was accepted, and whether it still holds."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, BaselineError, FtbenchError
from ftbench.cli.options import (
    AttentionOption,
    GpuOption,
    JsonOption,
    OnlyOption,
    ProfileArgument,
    SetOption,
    attention_of,
    forecast_of,
    gpus_of,
    open_console,
    resolved_grid,
    selection_of,
    size_of,
)
from ftbench.plan.settings import differing

if TYPE_CHECKING:
    from ftbench.gate.baseline import Baseline, Measured
    from ftbench.gate.predicted import RefusedGroup, Selection
    from ftbench.gate.result import GateResult
    from ftbench.plan.gpus import Gpu
    from ftbench.plan.grid import Grid
    from ftbench.records.prediction import AttentionKernel

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline", metavar="FILE", help="The baseline; else reports/baselines/PROFILE.json."
    ),
]

RunsOption = Annotated[
    Path | None,
    typer.Option("--runs", metavar="RUN_DIR", help="Measured runs, as `ftbench run` wrote them."),
]

GatedArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="A name under profiles/, a path to a TOML file, or pytest-benchmark's JSON.",
    ),
]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="Compare with this run directory, or this JSON of pytest-benchmark, instead.",
    ),
]
TimeOption = Annotated[
    bool,
    typer.Option(
        "--require-time", help="Time must be judged: exit with 2 if the runs do not allow it."
    ),
]
ToleranceOption = Annotated[
    str, typer.Option("--tolerance", metavar="SIZE", help="By how much requested bytes may differ.")
]
AcrossVersionsOption = Annotated[
    bool,
    typer.Option("--across-versions", help="Judge although the versions of the libraries differ."),
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML too.")
]
CommentOption = Annotated[
    Path | None,
    typer.Option("--comment", metavar="FILE", help="Write a comment in Markdown too."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page too.")
]

baseline_app = typer.Typer(
    no_args_is_help=True, help="Write down what cells need of memory, for `ftbench gate`."
)


@baseline_app.command("write")
def write_baseline(
    profile: ProfileArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    file: FileOption = None,
    runs: RunsOption = None,
    overrides: SetOption = None,
) -> None:
    """Predict every cell of a profile and write the first baseline; with --gpu for these cards too.

    With --runs the baseline keeps the figures of these runs as well.
    """
    from ftbench.gate.baseline_file import baseline_path, write_baseline

    path = file or baseline_path(profile_name(profile))
    if path.exists():
        raise BaselineError(
            "there is a baseline already",
            where=str(path),
            hint="`ftbench baseline update` shows what changes and replaces it",
        )
    loaded, grid = resolved_grid(profile, overrides, None)
    kernel = attention_of(attention)
    found = _predicted_whole(loaded.name, grid, gpus_of(gpu), kernel)
    if runs is not None:
        found = found.model_copy(update={"measured": _accepted(runs, grid)})
    write_baseline(found, path)
    cells = sum(len(group.cells) for group in found.groups)
    print(f"wrote {path}: {cells} cells in {len(found.groups)} groups")


@baseline_app.command("update")
def update_baseline(
    profile: ProfileArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    file: FileOption = None,
    runs: RunsOption = None,
    overrides: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Show what would change in a baseline, and why; write it if that is accepted.

    Cards and kernel are the baseline's, unless others are named. A file of an older format is written anew.
    """
    from ftbench.gate.baseline_file import (
        baseline_path,
        baseline_text,
        read_baseline,
        write_baseline,
    )
    from ftbench.gate.compare import compare

    path = file or baseline_path(profile_name(profile))
    before = read_baseline(path)
    gpus = gpus_of(gpu or list(before.architectures))
    kernel = attention_of(attention) if attention else before.attention_kernel
    loaded, grid = resolved_grid(profile, overrides, None)
    found = _predicted_whole(loaded.name, grid, gpus, kernel)
    same = not differing(before.workload, found.workload)  # else its runs are of something else
    kept = _accepted(runs, grid) if runs is not None else before.measured if same else None
    found = found.model_copy(update={"measured": kept})
    if baseline_text(found) == path.read_text(encoding="utf-8"):
        print(f"{path} is up to date: nothing to write")
        return
    result = compare(before, found, across_versions=True, across_workloads=True)
    _show(result, f"What changes in {path}:", accept="--yes")
    if baseline_text(found) == baseline_text(before):
        print("no figure: only the format of the file")
    if kept != before.measured:
        print("the figures of the measured runs change too")
    if not yes:
        if not sys.stdin.isatty():
            raise BaselineError(
                "not written: there is no terminal to ask for confirmation",
                where=str(path),
                hint="--yes writes what is shown above",
            )
        typer.confirm(f"Write {path}?", abort=True)
    write_baseline(found, path)
    print(f"wrote {path}")


def gate(
    profile: GatedArgument,
    file: FileOption = None,
    runs: RunsOption = None,
    base: BaseOption = None,
    require_time: TimeOption = False,
    tolerance: ToleranceOption = "0B",
    across_versions: AcrossVersionsOption = False,
    overrides: SetOption = None,
    only: OnlyOption = None,
    junit: JunitOption = None,
    comment: CommentOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every cell and compare with the baseline: 0 it holds, 1 it does not, 2 cannot be judged.

    With --runs, measured runs are compared instead: their memory and accuracy with the baseline's, or with
    those of --base, and then their time too. On GitHub Actions the verdict is on the page of the run.
    """
    allowed = size_of(tolerance, "--tolerance") or 0
    asked = _Asked(
        profile, overrides, only, file, runs, base, require_time, allowed, across_versions
    )
    try:
        result = _judge(asked)
    except FtbenchError as error:  # a forge is to show it too
        result = _nothing_to_judge(profile, error)
    if as_json:
        from ftbench.report.commands.gate import gate_json

        print(json.dumps(gate_json(result), indent=1))
    else:
        _show(result)
    _write(result, junit, comment, html)
    raise typer.Exit(result.exit_code)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What `gate` is to compare, and how strictly."""

    profile: str
    overrides: list[str] | None
    only: str | None
    file: Path | None
    runs: Path | None
    base: Path | None
    require_time: bool
    tolerance_bytes: int
    across_versions: bool

    @property
    def name(self) -> str:
        return profile_name(self.profile)

    @property
    def baseline(self) -> Path:
        """Return the file of the baseline."""
        from ftbench.gate.baseline_file import baseline_path

        return self.file or baseline_path(self.name)


def _judge(asked: _Asked) -> GateResult:
    if asked.profile.endswith(".json"):
        return _judge_benchmarks(asked)
    return _judge_predictions(asked) if asked.runs is None else _judge_runs(asked)


def _refuse_options(what: str, given: Mapping[str, object]) -> None:
    """Raise if an option was given that does not apply to what is compared."""
    for option, value in given.items():
        if value:
            raise BaselineError(f"{option} does not apply to {what}", where="gate")


def _judge_benchmarks(asked: _Asked) -> GateResult:
    """Return how the peaks in two of pytest-benchmark's files differ."""
    from ftbench.gate.compare import compare_peaks
    from ftbench.gate.pytest_benchmark import read_peaks

    others = {"--runs": asked.runs, "--require-time": asked.require_time, "--baseline": asked.file}
    _refuse_options("benchmarks", others | {"--set": asked.overrides, "--only": asked.only})
    file = Path(asked.profile)
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
    """Return how measured runs differ from those of --base, or from those that the baseline keeps."""
    from ftbench.gate.compare_runs import compare_measured
    from ftbench.gate.measured_runs import read_kept_runs, read_runs

    assert asked.runs is not None
    both = {"--baseline with --base": asked.file and asked.base}
    _refuse_options("measured runs", both | {"--tolerance": asked.tolerance_bytes})
    _, grid = resolved_grid(asked.profile, asked.overrides, None)
    chosen = grid.only(selection_of(asked.only)).cells if asked.only else None
    before = (
        read_runs(asked.base, grid.cells, chosen)
        if asked.base
        else read_kept_runs(asked.baseline, grid.cells, chosen)
    )
    return compare_measured(
        asked.name,
        before,
        read_runs(asked.runs, grid.cells, chosen, wanted=chosen or grid.cells),
        across_versions=asked.across_versions,
        require_time=asked.require_time,
    )


def _judge_predictions(asked: _Asked) -> GateResult:
    """Return how predictions differ from the baseline."""
    from ftbench.gate.baseline_file import read_baseline
    from ftbench.gate.compare import compare
    from ftbench.gate.predicted import select

    _refuse_options("predictions", {"--base": asked.base, "--require-time": asked.require_time})
    before = read_baseline(asked.baseline)
    gpus = gpus_of(list(before.architectures))
    profile, grid = resolved_grid(asked.profile, asked.overrides, None)
    chosen = grid.only(selection_of(asked.only))
    selection = select(grid, chosen.cells)
    found, refused = _predicted(profile.name, chosen, selection, gpus, before.attention_kernel)
    return compare(
        before.without(selection.left_out),
        found,
        tolerance_bytes=asked.tolerance_bytes,
        across_versions=asked.across_versions,
        refused=refused,
    )


def _nothing_to_judge(profile: str, error: FtbenchError) -> GateResult:
    from ftbench.gate.reasons import Failed
    from ftbench.gate.result import GateResult

    return GateResult(profile_name(profile), (), unjudged=(Failed(str(error)),))


def _write(result: GateResult, junit: Path | None, comment: Path | None, html: Path | None) -> None:
    """Write what was asked for, and the step's summary if a forge has one."""
    from ftbench.base.files import write_atomically
    from ftbench.report.commands import gate as texts
    from ftbench.report.render import step_summary

    try:
        if junit is not None:
            write_atomically(junit, texts.gate_junit(result))
        if comment is not None:
            write_atomically(comment, texts.gate_markdown(result))
        if html is not None:
            from ftbench.report.render.html import render

            write_atomically(html, render(texts.gate_document(result)))
    except OSError as error:
        raise BaselineError(
            f"cannot be written: {error.strerror}", where=str(error.filename)
        ) from error
    if os.environ.get(step_summary.VARIABLE):
        try:
            step_summary.append(texts.gate_document(result))
        except FtbenchError as error:  # nobody asked for it: the verdict stands without
            print(f"ftbench: no step summary: {error}", file=sys.stderr)


def profile_name(profile: str) -> str:
    """Return the name of a profile, which may be given as a path."""
    return Path(profile).stem if profile.endswith(".toml") else profile


def _accepted(path: Path, grid: Grid) -> Measured:
    """Return the runs of a run directory as a baseline keeps them; raises BaselineError for doubtful ones."""
    from ftbench.gate.measured_runs import measured_of, read_runs
    from ftbench.report.commands.gate_sentences import reason_words

    runs = read_runs(path, grid.cells)
    if not runs.complete:
        raise BaselineError(
            "no baseline from runs that did not finish, or with figures that cannot be right",
            where=str(path),
            got="; ".join(map(reason_words, runs.doubts)) or None,
            hint="`ftbench run --rerun-noisy` runs them again",
        )
    return measured_of(runs)


def _predicted_whole(
    profile: str, grid: Grid, gpus: Sequence[Gpu], kernel: AttentionKernel | None
) -> Baseline:
    """Return what is predicted of all cells of a grid; raises BaselineError if some are refused."""
    from ftbench.gate.predicted import require_all, select

    found, refused = _predicted(profile, grid, select(grid), gpus, kernel)
    require_all(refused)
    return found


def _predicted(
    profile: str,
    chosen: Grid,
    selection: Selection,
    gpus: Sequence[Gpu],
    kernel: AttentionKernel | None,
) -> tuple[Baseline, tuple[RefusedGroup, ...]]:
    """Return what is predicted of the chosen cells, and the groups that are not in it."""
    from ftbench.gate.predicted import baseline_of, refused_groups

    predictions = forecast_of(
        chosen,
        gpus,
        largest_batch=bool(gpus),
        attention=kernel,
        breakdown_of=selection.references,
    )
    found = baseline_of(profile, selection, predictions, gpus, attention_kernel=kernel)
    return found, refused_groups(selection, predictions)


def _show(result: GateResult, heading: str | None = None, **accept: str) -> None:
    """Print a result: a heading or the verdict, what moved and by what."""
    from ftbench.report.commands.gate import changes_table, headline, lines
    from ftbench.report.render.terminal import show_table

    console = open_console()
    style = "bold red" if result.exit_code == EXIT_FINDING and not heading else "bold"
    console.print(heading or headline(result), style=style, soft_wrap=True)
    if result.changes:
        show_table(console, changes_table(result.changes))
    for line in lines(result, **accept):
        console.print(line, soft_wrap=True, markup=False)
