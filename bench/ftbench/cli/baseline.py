"""Commands that write accepted figures as a baseline, with which `ftbench gate` compares new ones."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import BaselineError
from ftbench.cli.gate import FileOption, RunsOption, show_result
from ftbench.cli.options import (
    AttentionOption,
    GpuOption,
    SetOption,
)
from ftbench.cli.subjects import (
    OF_PROFILES,
    ArgOption,
    GpusOption,
    StepsOption,
    SubjectArgument,
    refuse_options,
    subject_of,
)
from ftbench.cli.summaries import summary_of
from ftbench.plan.settings import differing
from ftbench.verbs.cards import gpus_of
from ftbench.verbs.given import attention_of
from ftbench.verbs.subjects import ProfileSubject, ProgramSubject, Subject, baseline_name

if TYPE_CHECKING:
    from ftbench.gating.baseline import Baseline, Measured
    from ftbench.plan.gpus import Gpu
    from ftbench.records.prediction import AttentionKernel

_SUMMARY = "Write or update the baseline that `ftbench gate` compares with."
baseline_app = typer.Typer(no_args_is_help=True, help=_SUMMARY, short_help=_SUMMARY)


def write_baseline(
    subject: SubjectArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    file: FileOption = None,
    runs: RunsOption = None,
    overrides: SetOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    several: GpusOption = None,
) -> None:
    """Predict the memory of all cells and write a baseline.

    With --gpu, the baseline also has the predicted figures for these cards; with --runs, the measured
    figures of these runs.
    """
    from ftbench.gating.baseline_file import baseline_path, write_baseline

    path = file or baseline_path(baseline_name(subject))
    if path.exists():
        raise BaselineError(
            "the baseline exists already",
            where=str(path),
            hint="`ftbench baseline update` shows what changes and replaces it",
        )
    asked = subject_of(subject, overrides=overrides, arguments=arguments, steps=steps, gpus=several)
    _refuse_runs(asked, runs)
    found = _predicted_whole(asked, gpus_of(gpu or ()), attention_of(attention))
    if runs is not None:
        found = found.model_copy(update={"measured": _accepted(runs, asked)})
    write_baseline(found, path)
    cells = sum(len(group.cells) for group in found.groups)
    print(f"wrote {path}: {cells} cells in {len(found.groups)} groups")


def update_baseline(
    subject: SubjectArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    file: FileOption = None,
    runs: RunsOption = None,
    overrides: SetOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    several: GpusOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Write the baseline without asking for confirmation.")
    ] = False,
) -> None:
    """Show the changes to a baseline, and write it on confirmation.

    Cards and attention kernel stay as in the baseline unless --gpu or --attention names others. A file in an
    older format is converted.
    """
    from ftbench.gating.baseline_file import (
        baseline_path,
        baseline_text,
        read_baseline,
        write_baseline,
    )
    from ftbench.gating.compare import compare
    from ftbench.verbs.gate import update_command

    path = file or baseline_path(baseline_name(subject))
    before = read_baseline(path)
    cards = gpus_of(gpu or list(before.architectures))
    kernel = attention_of(attention) if attention else before.attention_kernel
    asked = subject_of(subject, overrides=overrides, arguments=arguments, steps=steps, gpus=several)
    _refuse_runs(asked, runs)
    found = _predicted_whole(asked, cards, kernel)
    same = not differing(
        before.workload, found.workload
    )  # else its runs belong to another workload
    kept = _accepted(runs, asked) if runs is not None else before.measured if same else None
    found = found.model_copy(update={"measured": kept})
    if baseline_text(found) == path.read_text(encoding="utf-8"):
        print(f"{path} is up to date: nothing to write")
        return
    result = compare(before, found, across_versions=True, across_workloads=True)
    given: dict[str, object] = {"--set": overrides, "--arg": arguments, "--steps": steps}
    given |= {"--gpus": several, "--baseline": file, "--runs": runs}
    accept = (*update_command(subject, given | {"--gpu": gpu, "--attention": attention}), "--yes")
    show_result(dataclasses.replace(result, accept=accept), f"What changes in {path}:")
    if baseline_text(found) == baseline_text(before):
        print("no figure changes, only the format of the file")
    if kept != before.measured:
        print("the figures of the measured runs change as well")
    if not yes:
        _confirm(path)
    write_baseline(found, path)
    print(f"wrote {path}")


def _confirm(path: Path) -> None:
    """Ask whether to write a baseline, and end the command if not; raises BaselineError without a terminal."""
    if not sys.stdin.isatty():
        raise BaselineError(
            "not written: there is no terminal to ask for confirmation",
            where=str(path),
            hint="--yes writes what is shown above",
        )
    typer.confirm(f"Write {path}?", abort=True)


def _refuse_runs(subject: Subject, runs: Path | None) -> None:
    """Raise ProfileError for measured runs of a program: `ftbench run` runs profiles."""
    if isinstance(subject, ProgramSubject):
        refuse_options(subject.name, OF_PROFILES, {"--runs": runs})


def _accepted(path: Path, subject: Subject) -> Measured:
    """Return the runs of a run directory for a baseline; raises BaselineError if they are not complete."""
    from ftbench.gating.measured_runs import measured_of, read_runs
    from ftbench.report.commands.gate_sentences import reason_words

    assert isinstance(subject, ProfileSubject)
    runs = read_runs(path, subject.whole.cells)
    if not runs.complete:
        raise BaselineError(
            "a baseline needs runs that finished, and whose figures break no rule",
            where=str(path),
            got="; ".join(map(reason_words, runs.doubts)) or None,
            hint="`ftbench run --rerun-noisy` runs them again",
        )
    return measured_of(runs)


def _predicted_whole(
    subject: Subject, gpus: Sequence[Gpu], kernel: AttentionKernel | None
) -> Baseline:
    """Return the predictions of all cells of a subject; raises BaselineError if some cannot be predicted."""
    from ftbench.gating.predicted import require_all

    found, refused = subject.baseline(gpus, kernel)
    require_all(refused)
    return found


for name, command in {"write": write_baseline, "update": update_baseline}.items():
    baseline_app.command(name, short_help=summary_of(command))(command)
