"""Document: the sections of a report in order, whatever it is rendered to."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ftbench.analysis.comparisons.contrast import ENVIRONMENT, separating_axes
from ftbench.analysis.comparisons.decision import decision
from ftbench.analysis.fits.laws import FitGroup, LearningCurve, Refusal
from ftbench.analysis.tables.axis_series import series_along
from ftbench.analysis.tables.cells_table import (
    SCORE_ERROR,
    cells_table,
    headline_score,
    varying_axes,
)
from ftbench.analysis.tables.memory_table import memory_table
from ftbench.analysis.tables.ranks_table import ranks_table
from ftbench.analysis.tables.scores_table import scores_table
from ftbench.base.units import counted, format_flops, format_value
from ftbench.plan.profile import IN_PYTHON, Profile
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.environment import Environment
from ftbench.records.messages import Preparation
from ftbench.records.prediction import LargestBatch
from ftbench.records.record import Record
from ftbench.report.charts.curves import curves
from ftbench.report.charts.inputs import ChartInputs, ReadSamples, no_samples
from ftbench.report.charts.largest import largest
from ftbench.report.charts.learning import learning
from ftbench.report.charts.memory import cell_memory
from ftbench.report.charts.pareto import pareto
from ftbench.report.charts.surfaces import surfaces
from ftbench.report.elements.figure import ReportFigure
from ftbench.report.elements.section import Section, with_glossary
from ftbench.report.elements.tables import along, cells
from ftbench.report.sections.decision import decision_words
from ftbench.report.sections.fits import NOTE, fit_tables, learning_section, refusals
from ftbench.report.sections.headlines import headlines, stats
from ftbench.report.sections.memory import memory_section
from ftbench.report.sections.parallel import parallel_section
from ftbench.report.sections.pareto import HEADING, buying_note, buying_section
from ftbench.report.sections.provenance import environment_section
from ftbench.report.sections.scores import scores_section
from ftbench.report.sections.settings import choices_section
from ftbench.report.sections.warnings import warnings_section
from ftbench.report.sections.workload import workload_section


@dataclasses.dataclass(frozen=True)
class Document:
    """A report, and the tables that are written beside it as CSV.

    `profile` and `environments` (by id) are what the run directory says of itself, for formats that a
    program reads, `groups` and `curves` the fits. `stem` is the name of the report's file, without its
    ending.
    """

    title: str
    sections: tuple[Section, ...]
    cells: pd.DataFrame
    ledger: pd.DataFrame
    scores: pd.DataFrame = dataclasses.field(default_factory=lambda: scores_table(()))
    ranks: pd.DataFrame = dataclasses.field(default_factory=lambda: ranks_table(()))
    profile: Profile | None = None
    environments: Mapping[str, Environment] = dataclasses.field(default_factory=dict)
    stem: str = "report"
    groups: Sequence[FitGroup] = ()
    curves: Sequence[LearningCurve | Refusal] = ()
    stats: tuple[tuple[str, str, str], ...] = ()  # the report in a few figures: what, value, note

    @property
    def figures(self) -> Iterator[ReportFigure]:
        """Yield the figures of all sections."""
        for section in self.sections:
            yield from section.figures

    @property
    def figures_folder(self) -> str:
        """Return the name of the folder that pictures are written to, beside the report."""
        return "figures" if self.stem == "report" else f"{self.stem}-figures"


def build(
    records: Sequence[Record],
    profile: Profile,
    preparation: Preparation,
    environments: Mapping[str, Environment],
    damaged: Sequence[str] = (),
    *,
    groups: Sequence[FitGroup] = (),
    fitted_curves: Sequence[LearningCurve | Refusal] = (),
    tries: Sequence[BatchProbe] = (),
    predicted: Sequence[LargestBatch] = (),
    samples: ReadSamples = no_samples,
    usd_per_hour: float | None = None,
) -> Document:
    """Return the report of a run directory's records; `damaged` names those that can't be read.

    `groups` and `fitted_curves` are the fits, `tries` and `predicted` the evidence for the largest
    batch; `samples` reads a record's samples of memory. With `usd_per_hour` the cells that are worth
    their time have its money beside it.
    """
    table = cells_table(records)
    axes = separating_axes(table, varying_axes(records))
    scores = scores_table(records)
    inputs = ChartInputs(table, axes, records, groups, fitted_curves, samples)
    sections = [
        Section("What was found", (*_found(inputs), *_damage(damaged))),
        Section("Memory and time", figures=tuple(surfaces(inputs))),
        Section("The largest batch", figures=tuple(largest(tries, predicted))),
        _scaling(inputs),
        choices_section(table, axes),
        Section(
            "What training examples bring",
            *learning_section(fitted_curves),
            tuple(learning(inputs)),
        ),
        _buying(inputs, usd_per_hour),
        Section("Memory", *memory_section(table, records), tuple(cell_memory(inputs))),
        parallel_section(records),
        Section("Cells", tables=(cells(table, axes),)),
        scores_section(table, scores, axes),
        Section("Warnings", *warnings_section(records)),
        Section("How to read this", tuple(_reading_notes(inputs, profile, preparation))),
        workload_section(records, preparation),
        Section("Where it was measured", *environment_section(records, environments)),
        Section("How to reproduce it", tuple(_reproduction(profile))),
    ]
    return Document(
        title=f"ftbench: {profile.name}",
        sections=with_glossary(sections),
        cells=table,
        ledger=memory_table(records),
        scores=scores,
        ranks=ranks_table(records),
        profile=profile,
        environments=environments,
        groups=groups,
        curves=fitted_curves,
        stats=tuple(stats(table, axes)),
    )


def _found(inputs: ChartInputs) -> Iterator[str]:
    """Yield the decision, and below it what was found."""
    table, axes = inputs.table, inputs.axes
    methods = [record.cell.method for record in inputs.records]
    yield from decision_words(decision(table, axes), table, axes, methods)
    yield from headlines(table, axes, inputs.groups, inputs.curves)


_SCALING_NOTE = (
    "In a table along an axis every other axis is fixed; in brackets is the ratio to the row above. "
    "Costs are medians over replicates, scores are their mean."
)
# Tables along one axis: a grid of a thousand cells has hundreds, and cells.csv has them all.
_MOST_SERIES = 6


def _buying(inputs: ChartInputs, usd_per_hour: float | None) -> Section:
    """Return the front of the score against each cost, in words and figures."""
    said = buying_section(inputs.table, inputs.axes, usd_per_hour=usd_per_hour)
    figures = tuple(pareto(inputs))
    return dataclasses.replace(said or Section(HEADING), figures=figures)


def _scaling(inputs: ChartInputs) -> Section:
    """Return the laws, and the measured figures along each axis."""
    tables = [
        along(series)
        for axis in inputs.varying()
        for series in series_along(inputs.table, axis, inputs.axes)[:_MOST_SERIES]
    ]
    laws = fit_tables(inputs.groups)
    notes = (
        *([NOTE] if laws else []),
        *refusals(inputs.groups),
        *([_SCALING_NOTE] if tables else []),
    )
    return Section("How cost scales", notes, (*laws, *tables), tuple(curves(inputs)))


def _damage(damaged: Sequence[str]) -> list[str]:
    are, them, their = (
        ("is", "it", "its cell") if len(damaged) == 1 else ("are", "them", "their cells")
    )
    return [
        f"{counted(len(damaged), 'record')} cannot be read and {are} left out: {'; '.join(damaged)}."
        f" `ftbench run` moves {them} away and runs {their} again."
    ] * bool(damaged)


def _reading_notes(inputs: ChartInputs, profile: Profile, preparation: Preparation) -> list[str]:
    """Return notes on how to read the figures."""
    table, records = inputs.table, inputs.records
    notes = []
    if ENVIRONMENT in inputs.axes:
        notes.append(
            f"The runs are of {table[ENVIRONMENT].nunique()} environments. Those of one are no replicates of"
            " another's: the environment tells cells apart, as an axis does."
        )
    notes += _score_notes(inputs)
    score = headline_score(table)
    if table.loc[table[score.column].notna(), "cell_id"].nunique() > 1:
        notes.append(buying_note(score.word, inputs.eval_sizes[0]))
    split = preparation.eval_split
    if split == "from-train":
        notes.append(
            "Evaluation examples are held out from the training split (the last part of each class, so that"
            " near-duplicates stay together): scores are not comparable with the official test split."
        )
    if profile.settings["save_strategy"] == "no":
        notes.append(
            "This profile turns off saving checkpoints: a full recipe costs that time and disk as well."
        )
    if table["mfu"].notna().any():
        peaks = {r.measurement.peak_matmul_flops for r in records if r.measurement} - {None}
        rates = ", ".join(format_flops(peak) for peak in sorted(filter(None, peaks)))
        notes.append(
            f"MFU is the FLOPs of forward and backward over padded tokens, recomputation not counted, against the"
            f" fastest matrix product measured on the spot: {rates}."
        )
    notes.append(
        "Step times are medians of full-size steps after warm-up (the first two, and what the step times"
        " themselves show to be unsteady), from the moment the batch is asked for; cells.csv has their 95 %"
        " bootstrap intervals."
        " Tokens/s are real tokens; padded ones stand apart. Memory is in powers of 1024."
    )
    return notes


def _score_notes(inputs: ChartInputs) -> Iterator[str]:
    """Yield notes on the scores, or why there are none."""
    table = inputs.table
    score = headline_score(table)
    word = f"{score.word[:1].upper()}{score.word[1:]}"
    if not table[score.column].notna().any():
        yield from (f"Scores are absent: {reason}." for reason in sorted(_reasons(inputs.records)))
        return
    seeds = table.groupby(list(inputs.axes))["seed"].nunique()
    fewest, *more = inputs.eval_sizes
    first = f"{format_value(fewest)} to " if more else ""
    examples = first + counted(more[-1] if more else fewest, "evaluation example")
    error = table[SCORE_ERROR].max()
    alone = (
        f", which alone gives it a standard error of up to {error:.3f}" if pd.notna(error) else ""
    )
    spread = (
        f"cells were run up to {seeds.max()} times with different seeds, and ± is the standard deviation over"
        " them"
        if seeds.max() > 1
        else "every cell was run with one seed, so its spread over seeds is not known"
    )
    yield (
        f"{word} is over {examples}{alone}; {spread}. The checkpoint that is reported was"
        " chosen on the same examples, as in the recipe, so the score is slightly optimistic."
    )
    if table["train_size"].nunique() > 1:
        yield (
            "The number of epochs is fixed, so more training examples also mean more optimizer steps: part of the"
            f" rise of {score.word} with them is simply longer training."
        )


def _reasons(records: Sequence[Record]) -> set[str]:
    """Return why records have no scores."""
    measured = filter(None, (record.measurement for record in records))
    return {one.absent["scores"] for one in measured if "scores" in one.absent}


def _reproduction(profile: Profile) -> list[str]:
    """Return the command that makes this run directory again."""
    if profile.reference == IN_PYTHON:
        return [
            "`ftbench.run(profile)`, in Python, with the settings of `profile.json` in the run directory"
        ]
    overrides = "".join(f" --set {shlex.quote(text)}" for text in profile.overrides)
    return [f"`ftbench run {shlex.quote(profile.reference or profile.name)}{overrides}`"]
