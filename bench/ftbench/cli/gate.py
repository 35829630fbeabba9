"""Commands that guard memory: they write accepted figures as a baseline, and compare new figures with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        "--baseline",
        metavar="FILE",
        help="The baseline's file.  [default: reports/baselines/PROFILE.json]",
    ),
]

RunsOption = Annotated[
    Path | None,
    typer.Option("--runs", metavar="RUN_DIR", help="A directory with runs of `ftbench run`."),
]

GatedArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="A profile's name or TOML file, or a JSON file of pytest-benchmark.",
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

baseline_app = typer.Typer(
    no_args_is_help=True, help="Write or update the baseline that `ftbench gate` compares with."
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
    """Predict the memory of all cells and write a baseline.

    With --gpu, the baseline also has the predicted figures for these cards; with --runs, the measured
    figures of these runs.
    """
    from ftbench.gate.baseline_file import baseline_path, write_baseline

    path = file or baseline_path(profile_name(profile))
    if path.exists():
        raise BaselineError(
            "the baseline exists already",
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
    yes: Annotated[
        bool, typer.Option("--yes", help="Write the baseline without asking for confirmation.")
    ] = False,
) -> None:
    """Show the changes to a baseline, and write it on confirmation.

    Cards and attention kernel stay as in the baseline unless --gpu or --attention names others. A file in an
    older format is converted.
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
    same = not differing(
        before.workload, found.workload
    )  # else its runs belong to another workload
    kept = _accepted(runs, grid) if runs is not None else before.measured if same else None
    found = found.model_copy(update={"measured": kept})
    if baseline_text(found) == path.read_text(encoding="utf-8"):
        print(f"{path} is up to date: nothing to write")
        return
    result = compare(before, found, across_versions=True, across_workloads=True)
    _show(result, f"What changes in {path}:", accept="--yes")
    if baseline_text(found) == baseline_text(before):
        print("no figure changes, only the format of the file")
    if kept != before.measured:
        print("the figures of the measured runs change as well")
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
    """Compare predicted memory with the baseline, for CI.

    The exit code is 0 if nothing moved, 1 if something moved, and 2 if that cannot be judged.

    With --runs, memory and accuracy of measured runs are compared with those in the baseline; with --runs and
    --base, memory, accuracy and time are compared with those of other runs. On GitHub Actions, the verdict
    is also shown on the run's summary page.
    """
    allowed = size_of(tolerance, "--tolerance") or 0
    asked = _Asked(
        profile, overrides, only, file, runs, base, require_time, allowed, across_versions
    )
    try:
        result = _judge(asked)
    except FtbenchError as error:  # files and summaries show it, too
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
    """The arguments of `gate`: the figures to compare, and the tolerance."""

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
        """Return the path of the baseline."""
        from ftbench.gate.baseline_file import baseline_path

        return self.file or baseline_path(self.name)


def _judge(asked: _Asked) -> GateResult:
    if asked.profile.endswith(".json"):
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
    """Return the comparison of measured runs with those of --base, or with those in the baseline."""
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
    """Return the comparison of predictions with the baseline."""
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


def profile_name(profile: str) -> str:
    """Return the name of a profile that is given by its name or its path."""
    return Path(profile).stem if profile.endswith(".toml") else profile


def _accepted(path: Path, grid: Grid) -> Measured:
    """Return the runs of a run directory for a baseline; raises BaselineError if they are not complete."""
    from ftbench.gate.measured_runs import measured_of, read_runs
    from ftbench.report.commands.gate_sentences import reason_words

    runs = read_runs(path, grid.cells)
    if not runs.complete:
        raise BaselineError(
            "a baseline needs runs that finished, and whose figures break no rule",
            where=str(path),
            got="; ".join(map(reason_words, runs.doubts)) or None,
            hint="`ftbench run --rerun-noisy` runs them again",
        )
    return measured_of(runs)


def _predicted_whole(
    profile: str, grid: Grid, gpus: Sequence[Gpu], kernel: AttentionKernel | None
) -> Baseline:
    """Return the predictions of all cells of a grid; raises BaselineError if some cannot be predicted."""
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
    """Return the predictions of the chosen cells, and the groups that cannot be predicted."""
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
