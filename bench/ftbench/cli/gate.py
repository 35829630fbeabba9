"""Commands that guard memory: what was accepted, and whether it still holds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

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
    found, refused = _found(loaded, grid, grid.cells, gpus_of(gpu), attention_of(attention))
    _refuse_gaps(refused)
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
    found, refused = _found(loaded, grid, grid.cells, gpus, kernel)
    _refuse_gaps(refused)
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
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="A name under profiles/, a path to a TOML file, or pytest-benchmark's JSON.",
        ),
    ],
    file: FileOption = None,
    measured: MeasuredOption = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="PATH",
            help="Compare with this run directory, or this JSON of pytest-benchmark, instead.",
        ),
    ] = None,
    judge_time: Annotated[
        bool, typer.Option("--time", help="Time must be judged: the runs must alternate.")
    ] = False,
    tolerance: Annotated[
        str, typer.Option("--tolerance", metavar="SIZE", help="What requested bytes may move by.")
    ] = "0B",
    across_versions: Annotated[
        bool,
        typer.Option(
            "--across-versions", help="Judge under other versions of the libraries all the same."
        ),
    ] = False,
    overrides: SetOption = None,
    only: OnlyOption = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML too.")
    ] = None,
    comment: Annotated[
        Path | None,
        typer.Option("--comment", metavar="FILE", help="Write a comment in Markdown too."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every cell and compare with the baseline: 0 it holds, 1 it does not, 2 cannot be judged.

    With --measured, runs are compared instead: their memory and accuracy with the baseline's, or with
    those of --base, and then their time too. On GitHub Actions the comment is on the page of the run.
    """
    allowed = size_of(tolerance, "--tolerance") or 0
    try:
        if profile.endswith(".json"):
            others = {"--measured": measured, "--time": judge_time, "--baseline": file}
            _refuse_options("benchmarks", others | {"--set": overrides, "--only": only})
            result = _benchmarks(Path(profile), base, allowed, across_versions)
        elif measured is not None:
            both = {"--baseline with --base": file and base, "--tolerance": allowed}
            _refuse_options("measured runs", both)
            kept = file or _path_of(profile)
            _, grid = resolved_grid(profile, overrides, None)
            chosen = grid.only(selection_of(only)).cells if only else None
            before = _read_runs(base, grid, chosen) if base else _kept_runs(kept, grid, chosen)
            after = _read_runs(measured, grid, chosen, wanted=chosen or grid.cells)
            result = _compared(profile, before, after, across_versions, judge_time)
        else:
            _refuse_options("predictions", {"--base": base, "--time": judge_time})
            result = _predicted(profile, overrides, only, file, allowed, across_versions)
    except FtbenchError as error:  # a forge is to show it too
        result = _nothing_to_judge(profile, error)
    if as_json:
        from ftbench.report.commands.gate import gate_json

        print(json.dumps(gate_json(result), indent=1))
    else:
        _show(result)
    _write(result, junit, comment, html)
    raise typer.Exit(result.exit_code)


def _refuse_options(what: str, given: dict[str, Any]) -> None:
    """Raise where an option was given that says nothing about what is compared."""
    for option, value in given.items():
        if value:
            raise BaselineError(f"{option} says nothing of {what}", where="gate")


def _nothing_to_judge(profile: str, error: FtbenchError) -> Any:
    from ftbench.gate.compare import GateResult

    return GateResult(profile_name(profile), (), unjudged=(str(error),))


def _write(result: Any, junit: Path | None, comment: Path | None, html: Path | None) -> None:
    """Write what was asked for, and the step's summary where a forge has one."""
    from ftbench.base.files import write_atomically
    from ftbench.report.commands import gate as texts

    try:
        if junit is not None:
            write_atomically(junit, texts.gate_junit(result))
        if comment is not None:
            write_atomically(comment, texts.gate_markdown(result))
        if html is not None:
            from ftbench.report.render.html import render

            write_atomically(html, render(texts.gate_document(result)))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(texts.gate_markdown(result))
    except OSError as error:
        raise BaselineError(
            f"cannot be written: {error.strerror}", where=str(error.filename)
        ) from error


def profile_name(profile: str) -> str:
    """Return the name of a profile, which may be given as a path."""
    return Path(profile).stem if profile.endswith(".toml") else profile


def _path_of(profile: str) -> Path:
    from ftbench.gate.baseline_file import baseline_path

    return baseline_path(profile_name(profile))


def _predicted(
    profile: str,
    overrides: list[str] | None,
    only: str | None,
    file: Path | None,
    tolerance_bytes: int,
    across_versions: bool,
) -> Any:
    """Return what predictions say of the baseline."""
    from ftbench.gate.baseline_file import read_baseline
    from ftbench.gate.compare import compare

    before = read_baseline(file or _path_of(profile))
    gpus = gpus_of(list(before.architectures))
    loaded, grid = resolved_grid(profile, overrides, None)
    chosen = grid.only(selection_of(only)).cells
    found, refused = _found(loaded, grid, chosen, gpus, before.attention_kernel)
    return compare(
        before.only(grid, chosen),
        found,
        tolerance_bytes=tolerance_bytes,
        across_versions=across_versions,
        refused=refused,
    )


def _benchmarks(file: Path, base: Path | None, tolerance_bytes: int, across_versions: bool) -> Any:
    """Return what two of pytest-benchmark's files say of each other's peaks."""
    from ftbench.gate.compare import compare_peaks
    from ftbench.gate.pytest_benchmark import read_peaks

    if base is None:
        raise BaselineError("nothing to compare with", where=str(file), expected="--base OLD.json")
    return compare_peaks(
        file.stem,
        read_peaks(base),
        read_peaks(file),
        tolerance_bytes=tolerance_bytes,
        across_versions=across_versions,
    )


def _compared(
    profile: str, before: Any, after: Any, across_versions: bool, judge_time: bool
) -> Any:
    """Return what measured runs say of others."""
    from ftbench.gate.measured_runs import compare_measured

    return compare_measured(
        profile_name(profile),
        before,
        after,
        across_versions=across_versions,
        judge_time=judge_time,
    )


def _read_runs(path: Path, grid: Any, chosen: Any = None, wanted: Any = ()) -> Any:
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


def _kept_runs(file: Path, grid: Any, chosen: Any) -> Any:
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


def _kept(path: Path, grid: Any) -> Any:
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


def _found(
    profile: Any, grid: Any, chosen: Any, gpus: list[Any], kernel: Any
) -> tuple[Any, dict[str, str]]:
    """Return what is predicted of chosen cells as a baseline, and why groups are not in it, by their name."""
    from ftbench.gate.baseline import baseline_of, references

    among = frozenset(chosen)
    predictions = forecast_of(
        grid.model_copy(update={"cells": tuple(chosen)}),
        gpus,
        largest_batch=bool(gpus),
        attention=kernel,
        breakdown_of=references(grid, among),
    )
    found = baseline_of(profile, grid, predictions, gpus, attention_kernel=kernel, chosen=among)
    return found, dict(_refusals(grid, predictions))


def _refusals(grid: Any, predictions: Any) -> Any:
    from ftbench.plan.groups import group_name, groups_of

    reasons = {one.cell_id: one.reason for one in predictions.refused}
    for settings, cells in groups_of(grid.cells):
        for cell in cells.values():
            if cell.cell_id in reasons:
                yield group_name(settings), reasons[cell.cell_id].partition("\n")[0]


def _refuse_gaps(refused: dict[str, str]) -> None:
    """Raise where a baseline would have no figures of some cells."""
    for group, reason in refused.items():
        raise BaselineError(f"not predicted: {reason}", where=group or None)


def _show(result: Any, heading: str | None = None, **accept: str) -> None:
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
