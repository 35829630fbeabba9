"""Gate: new figures held to accepted ones."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.base.errors import BaselineError
from ftbench.plan.profile import Profile
from ftbench.verbs.cards import gpus_of
from ftbench.verbs.notebook import page_of
from ftbench.verbs.predict import subject_for
from ftbench.verbs.profiles import UNNAMED, texts_of
from ftbench.verbs.subjects import ProgramSubject, Subject, baseline_name, shown_name

if TYPE_CHECKING:
    import pandas as pd

    from ftbench.gating.baseline import Baseline
    from ftbench.gating.result import GateResult
    from ftbench.verbs.profiles import ProfileLike


@dataclasses.dataclass(frozen=True)
class GateQuestion:
    """What is compared with what: a subject, by its name and its figures, and the accepted figures.

    `make_subject` resolves the subject. `given` are the options that belong to it, by name: a comparison that
    cannot use them refuses them. `chosen` says whether they select some of its cells. `accept` has the words of the
    command that writes the baseline anew.
    """

    subject: str
    make_subject: Callable[[], Subject]
    given: Mapping[str, object] = dataclasses.field(default_factory=dict)
    chosen: bool = False
    file: Path | None = None
    runs: Path | None = None
    base: Path | None = None
    require_time: bool = False
    tolerance_bytes: int = 0
    across_versions: bool = False
    accept: tuple[str, ...] = ()

    @property
    def baseline(self) -> Path:
        """Return the path of the baseline."""
        from ftbench.gating.baseline_file import baseline_path

        return self.file or baseline_path(baseline_name(self.subject))


@dataclasses.dataclass(frozen=True)
class GateVerdict:
    """The verdict of a gate, and what led to it; a notebook shows the changes as a table."""

    result: GateResult

    @property
    def ok(self) -> bool:
        """Return whether everything was judged and nothing moved."""
        return self.result.exit_code == 0

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per change: the texts of the table that `ftbench gate` shows."""
        import pandas as pd

        from ftbench.report.commands.gate import changes_table

        table = changes_table(self.result.changes)
        return pd.DataFrame(list(table.rows), columns=list(table.columns))

    def raise_if_failed(self) -> None:
        """Raise BaselineError, with the whole verdict as its text, unless all holds."""
        if not self.ok:
            raise BaselineError(str(self))

    def __str__(self) -> str:
        """Return the verdict, the changes and their causes as text."""
        from ftbench.report.commands.gate import headline, lines

        changes = [" ".join(map(str, row)) for row in self.to_pandas().to_numpy()]
        return "\n".join([headline(self.result), *changes, *lines(self.result)])

    def _repr_html_(self) -> str:
        from ftbench.report.commands.gate import changes_table, headline, lines

        tables = [changes_table(self.result.changes)] if self.result.changes else []
        return page_of(tables, [headline(self.result), *lines(self.result)])


def gate(
    subject: ProfileLike,
    *,
    baseline: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    steps: int | None = None,
    tolerance_bytes: int = 0,
    across_versions: bool = False,
    require_time: bool = False,
    cache: bool = True,
) -> GateVerdict:
    """Compare the predicted memory of a subject with its baseline, to the byte.

    The subject is one of `predict`'s. `baseline` is its file (`reports/baselines/NAME.json` if none is given).
    With `runs`, a run directory, measured figures are compared: with those in the baseline, or with the run
    directory `base`. Raises BaselineError, ProfileError, WorkloadError and PredictionError; a figure that moved
    is no error, but in the verdict.
    """
    name = _name_of(subject)
    question = GateQuestion(
        subject=name,
        make_subject=lambda: subject_for(
            subject, (), settings, only, arguments, steps, cache=cache
        ),
        given={"settings": settings, "only": only, "arguments": arguments, "steps": steps},
        chosen=bool(only),
        file=_path(baseline),
        runs=_path(runs),
        base=_path(base),
        require_time=require_time,
        tolerance_bytes=tolerance_bytes,
        across_versions=across_versions,
        accept=_accepting(subject, settings, arguments, steps, baseline=baseline, runs=runs),
    )
    return GateVerdict(judge(question))


def _accepting(
    subject: ProfileLike,
    settings: Mapping[str, Any] | None,
    arguments: Mapping[str, Any] | None,
    steps: int | None,
    **paths: object,
) -> tuple[str, ...]:
    """Return the words of the command that accepts a subject's figures; none if the command line cannot name it."""
    if isinstance(subject, Profile | Mapping):
        return ()
    given = {
        "--set": texts_of(settings or {}),
        "--arg": texts_of(arguments or {}),
        "--steps": steps,
    }
    return update_command(os.fspath(subject), given | {f"--{k}": v for k, v in paths.items()})


def update_command(subject: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the words of the command that writes a subject's baseline anew, with the options that have a value."""
    words = ["ftbench", "baseline", "update", subject]
    for option, value in options.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        words += [word for one in values for word in (option, str(one))]
    return tuple(words)


def _name_of(subject: ProfileLike) -> str:
    """Return the name by which a subject's baseline is looked for."""
    if isinstance(subject, Profile):
        return subject.name
    if isinstance(subject, Mapping):
        return str(subject.get("name", UNNAMED))
    return os.fspath(subject)


def judge(question: GateQuestion) -> GateResult:
    """Return the comparison that a question asks for; raises BaselineError and what its subject raises."""
    if question.subject.endswith(".json"):
        return _judge_benchmarks(question)
    result = _judge_predictions(question) if question.runs is None else _judge_runs(question)
    return result if question.base else dataclasses.replace(result, accept=question.accept)


def _judge_benchmarks(question: GateQuestion) -> GateResult:
    """Return the comparison of the peaks in two JSON files of pytest-benchmark."""
    from ftbench.gating.compare import compare_peaks
    from ftbench.gating.pytest_benchmark import read_peaks

    others: dict[str, object] = {
        "--runs": question.runs,
        "--require-time": question.require_time,
        "--baseline": question.file,
    }
    _refuse_options("benchmarks", others | dict(question.given))
    file = Path(question.subject)
    if question.base is None:
        raise BaselineError("nothing to compare with", where=str(file), expected="--base OLD.json")
    return compare_peaks(
        file.stem,
        read_peaks(question.base),
        read_peaks(file),
        tolerance_bytes=question.tolerance_bytes,
        across_versions=question.across_versions,
    )


def _judge_runs(question: GateQuestion) -> GateResult:
    """Return the comparison of measured runs with those of `base`, or with those in the baseline."""
    from ftbench.gating.compare_runs import compare_measured
    from ftbench.gating.measured_runs import read_kept_runs, read_runs

    assert question.runs is not None
    both = {"--baseline with --base": question.file and question.base}
    _refuse_options("measured runs", both | {"--tolerance": question.tolerance_bytes})
    subject = question.make_subject()
    if isinstance(subject, ProgramSubject):
        raise BaselineError("--runs applies to profiles only", where="gate", got=subject.name)
    grid, chosen = subject.whole, subject.grid.cells if question.chosen else None
    before = (
        read_runs(question.base, grid.cells, chosen)
        if question.base
        else read_kept_runs(question.baseline, grid.cells, chosen)
    )
    return compare_measured(
        shown_name(question.subject),
        before,
        read_runs(question.runs, grid.cells, chosen, wanted=chosen or grid.cells),
        across_versions=question.across_versions,
        require_time=question.require_time,
    )


def _judge_predictions(question: GateQuestion) -> GateResult:
    """Return the comparison of predictions with the baseline."""
    from ftbench.gating.compare import compare

    others = {"--base": question.base, "--require-time": question.require_time}
    _refuse_options("predictions", others)
    before = _accepted(question)
    gpus, subject = gpus_of(list(before.architectures)), question.make_subject()
    found, refused = subject.baseline(gpus, before.attention_kernel)
    return compare(
        before.without(subject.left_out()),
        found,
        tolerance_bytes=question.tolerance_bytes,
        across_versions=question.across_versions,
        refused=refused,
    )


def _accepted(question: GateQuestion) -> Baseline:
    """Return the baseline; raises BaselineError, which names the whole command that writes a missing one."""
    from ftbench.gating.baseline_file import read_baseline

    try:
        return read_baseline(question.baseline)
    except BaselineError as error:
        if question.accept and not question.baseline.exists():
            write = shlex.join(("ftbench", "baseline", "write", *question.accept[3:]))
            error.hint = f"`{write}` makes it"
        raise


def _refuse_options(what: str, given: Mapping[str, object]) -> None:
    """Raise BaselineError if an option was given that does not apply to this comparison."""
    for option, value in given.items():
        if value:
            raise BaselineError(f"{option} does not apply to {what}", where="gate")


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
