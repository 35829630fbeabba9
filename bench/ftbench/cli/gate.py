"""Commands that guard memory: what was accepted, and whether it still holds."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
    from ftbench.gate.compare import GateResult
    from ftbench.gate.measured_runs import Runs
    from ftbench.plan.cell import Cell
    from ftbench.plan.gpus import Gpu
    from ftbench.plan.grid import Grid
    from ftbench.plan.profile import Profile
    from ftbench.records.prediction import AttentionKernel, Predictions

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline", metavar="FILE", help="The baseline; else reports/baselines/PROFILE.json."
    ),
]

MeasuredOption = Annotated[
    Path | None,
    typer.Option(
        "--measured", metavar="RUN_DIR", help="Measured runs, as `ftbench run` wrote them."
    ),
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
    bool, typer.Option("--time", help="Time must be judged: the runs must alternate.")
]
ToleranceOption = Annotated[
    str, typer.Option("--tolerance", metavar="SIZE", help="What requested bytes may move by.")
]
AcrossVersionsOption = Annotated[
    bool,
    typer.Option(
        "--across-versions", help="Judge under other versions of the libraries all the same."
    ),
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
    measured: MeasuredOption = None,
    overrides: SetOption = None,
) -> None:
    """Predict every cell of a profile and write the first baseline; with --gpu for these cards too.

    With --measured it has the figures of these runs as well.
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
    found = _complete(_found(loaded, grid, grid.cells, gpus_of(gpu), kernel))
    if measured is not None:
        found = found.model_copy(update={"measured": _kept(measured, grid)})
    write_baseline(found, path)
    cells = sum(len(group.cells) for group in found.groups)
    print(f"wrote {path}: {cells} cells in {len(found.groups)} groups")


@baseline_app.command("update")
def update_baseline(
    profile: ProfileArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    file: FileOption = None,
    measured: MeasuredOption = None,
    overrides: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Show what would change in a baseline, and why; write it where that is accepted.

    Cards and kernel are the baseline's, unless others are named.
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
    found = _complete(_found(loaded, grid, grid.cells, gpus, kernel))
    same = not differing(before.workload, found.workload)  # else its runs are of something else
    kept = _kept(measured, grid) if measured is not None else before.measured if same else None
    found = found.model_copy(update={"measured": kept})
    if baseline_text(found) == baseline_text(before):
        print(f"{path} says the same: nothing to write")
        return
    result = compare(before, found, across_versions=True, across_workloads=True)
    _show(result, f"What changes in {path}:", accept="--yes")
    if kept != before.measured:
        print("the figures of the measured runs are others too")
    if not yes:
        if not sys.stdin.isatty():
            raise BaselineError(
                "nobody to ask", where=str(path), hint="--yes writes what is shown above"
            )
        typer.confirm(f"Write {path}?", abort=True)
    write_baseline(found, path)
    print(f"wrote {path}")


def gate(
    profile: GatedArgument,
    file: FileOption = None,
    measured: MeasuredOption = None,
    base: BaseOption = None,
    judge_time: TimeOption = False,
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

    With --measured, runs are compared instead: their memory and accuracy with the baseline's, or with
    those of --base, and then their time too. On GitHub Actions the verdict is on the page of the run.
    """
    allowed = size_of(tolerance, "--tolerance") or 0
    asked = _Asked(
        profile, overrides, only, file, measured, base, judge_time, allowed, across_versions
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
    measured: Path | None
    base: Path | None
    judge_time: bool
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
    return _judge_predictions(asked) if asked.measured is None else _judge_runs(asked)


def _refuse_options(what: str, given: Mapping[str, object]) -> None:
    """Raise if an option was given that says nothing about what is compared."""
    for option, value in given.items():
        if value:
            raise BaselineError(f"{option} says nothing of {what}", where="gate")


def _judge_benchmarks(asked: _Asked) -> GateResult:
    """Return how the peaks in two of pytest-benchmark's files differ."""
    from ftbench.gate.compare import compare_peaks
    from ftbench.gate.pytest_benchmark import read_peaks

    others = {"--measured": asked.measured, "--time": asked.judge_time, "--baseline": asked.file}
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
    from ftbench.gate.measured_runs import compare_measured

    assert asked.measured is not None
    both = {"--baseline with --base": asked.file and asked.base}
    _refuse_options("measured runs", both | {"--tolerance": asked.tolerance_bytes})
    _, grid = resolved_grid(asked.profile, asked.overrides, None)
    chosen = grid.only(selection_of(asked.only)).cells if asked.only else None
    return compare_measured(
        asked.name,
        _read_runs(asked.base, grid, chosen)
        if asked.base
        else _kept_runs(asked.baseline, grid, chosen),
        _read_runs(asked.measured, grid, chosen, wanted=chosen or grid.cells),
        across_versions=asked.across_versions,
        judge_time=asked.judge_time,
    )


def _judge_predictions(asked: _Asked) -> GateResult:
    """Return how predictions differ from the baseline."""
    from ftbench.gate.baseline_file import read_baseline
    from ftbench.gate.compare import compare

    _refuse_options("predictions", {"--base": asked.base, "--time": asked.judge_time})
    before = read_baseline(asked.baseline)
    gpus = gpus_of(list(before.architectures))
    profile, grid = resolved_grid(asked.profile, asked.overrides, None)
    chosen = grid.only(selection_of(asked.only)).cells
    found = _found(profile, grid, chosen, gpus, before.attention_kernel)
    return compare(
        before.only(grid, chosen),
        found.baseline,
        tolerance_bytes=asked.tolerance_bytes,
        across_versions=asked.across_versions,
        refused=found.refused,
    )


def _nothing_to_judge(profile: str, error: FtbenchError) -> GateResult:
    from ftbench.gate.compare import GateResult

    return GateResult(profile_name(profile), (), unjudged=(str(error),))


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


def _read_runs(
    path: Path,
    grid: Grid,
    chosen: Sequence[Cell] | None = None,
    wanted: Sequence[Cell] = (),
) -> Runs:
    """Return the runs of a run directory, of the chosen cells of a grid or of all that it has."""
    from ftbench.gate.measured_runs import runs_of
    from ftbench.records.run_directory import RunDirectory

    directory = RunDirectory.open(path)
    records, damaged = directory.survey()
    return runs_of(
        records,
        directory.environments(),
        len(damaged),
        grid=grid.cells,
        chosen=chosen,
        wanted=wanted,
    )


def _kept_runs(file: Path, grid: Grid, chosen: Sequence[Cell] | None) -> Runs:
    """Return the runs that a baseline keeps, of the chosen cells of a grid or all."""
    from ftbench.gate.baseline_file import read_baseline
    from ftbench.gate.measured_runs import kept_runs

    kept = read_baseline(file).measured
    if kept is None:
        raise BaselineError(
            "the baseline has no measured runs",
            where=str(file),
            hint="`ftbench baseline update --measured RUN_DIR` keeps some",
        )
    runs = kept_runs(kept)
    return runs if chosen is None else runs.only(grid.cells, chosen)


def _kept(path: Path, grid: Grid) -> Measured:
    """Return the runs of a run directory as a baseline keeps them."""
    from ftbench.gate.measured_runs import measured_of

    runs = _read_runs(path, grid)
    if runs.doubts or runs.oom or not runs.samples:
        raise BaselineError(
            "no baseline from runs that did not finish, or with figures that cannot be right",
            where=str(path),
            got="; ".join(runs.doubts) or None,
            hint="`ftbench run --rerun-noisy` runs them again",
        )
    return measured_of(runs)


class _Found(NamedTuple):
    """What is predicted now, and why groups are not in it, by their name."""

    baseline: Baseline
    refused: dict[str, str]


def _found(
    profile: Profile,
    grid: Grid,
    cells: Collection[Cell],
    gpus: Sequence[Gpu],
    kernel: AttentionKernel | None,
) -> _Found:
    """Return what is predicted of some cells of a grid."""
    from ftbench.gate.baseline import baseline_of, references

    chosen = frozenset(cells)
    predictions = forecast_of(
        grid.model_copy(update={"cells": tuple(cells)}),
        gpus,
        largest_batch=bool(gpus),
        attention=kernel,
        breakdown_of=references(grid, chosen),
    )
    baseline = baseline_of(profile, grid, predictions, gpus, attention_kernel=kernel, chosen=chosen)
    return _Found(baseline, dict(_refusals(grid, predictions)))


def _refusals(grid: Grid, predictions: Predictions) -> Iterator[tuple[str, str]]:
    from ftbench.plan.groups import group_name, groups_of

    reasons = {one.cell_id: one.reason for one in predictions.refused}
    for settings, cells in groups_of(grid.cells):
        for cell in cells.values():
            if cell.cell_id in reasons:
                yield group_name(settings), reasons[cell.cell_id].partition("\n")[0]


def _complete(found: _Found) -> Baseline:
    """Return what was found; raises BaselineError if it has no figures of some cells."""
    for group, reason in found.refused.items():
        raise BaselineError(f"not predicted: {reason}", where=group or None)
    return found.baseline


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
