"""Document: what a report says, in order, whatever it is rendered to."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.analysis.along import chains_along
from bench.analysis.ledger import ledger_table
from bench.analysis.summary import UNTRUSTED, cells_table, headline_memory, varying_axes
from bench.messages import Preparation
from bench.profile import Profile
from bench.record import Environment, Record
from bench.report.memory import memory_section
from bench.report.section import Section as Section  # part of a document
from bench.report.tables import along, axis_word, cells, format_figure, memory_word
from bench.trust import untrusted_figures
from bench.units import format_bytes, format_flops, format_ratio, format_seconds


@dataclasses.dataclass(frozen=True)
class Document:
    """A report, and the tables that are written beside it as CSV.

    `profile` and `environments` (by id) are what the run directory says of itself, for formats that a
    program reads. `stem` is the name of the report's file, without its ending.
    """

    title: str
    sections: tuple[Section, ...]
    cells: pd.DataFrame
    ledger: pd.DataFrame
    profile: Profile | None = None
    environments: Mapping[str, Environment] = dataclasses.field(default_factory=dict)
    stem: str = "report"


def build(
    records: Sequence[Record],
    profile: Profile,
    preparation: Preparation,
    environments: Mapping[str, Environment],
    damaged: Sequence[str] = (),
) -> Document:
    """Return the report of a run directory's records; `damaged` names those that can't be read."""
    table = cells_table(records)
    axes = varying_axes(records)
    scaling = [
        along(chain)
        for axis in axes
        if table[axis].nunique() > 1
        for chain in chains_along(table, axis, axes)
    ]
    sections = [
        Section("What was found", (*_headlines(table, axes), *_damage(damaged))),
        Section("Cells", tuple(_cell_notes(records)), (cells(table, axes),)),
        Section("Memory", *memory_section(table, records)),
        Section("How cost scales", (_SCALING_NOTE,), tuple(scaling)),
        Section("How to read this", tuple(_reading_notes(table, records, profile, preparation))),
        Section(
            "Where it was measured", tuple(_environment_notes(records, environments, preparation))
        ),
        Section("How to reproduce it", tuple(_reproduction(profile))),
    ]
    return Document(
        title=f"ftbench: {profile.name}",
        sections=tuple(section for section in sections if section.paragraphs or section.tables),
        cells=table,
        ledger=ledger_table(records),
        profile=profile,
        environments=environments,
    )


_SCALING_NOTE = (
    "Each table holds every axis but one; in brackets is the ratio to the row above. "
    "Costs are medians over replicates, accuracy is their mean."
)


def _headlines(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the first sentences: what finished, and the ends of the longest chain of each axis."""
    finished = int((table["status"] == "ok").sum())
    lines = [f"{finished} of {len(table)} runs finished."]
    untrusted = int((table["status"] == UNTRUSTED).sum())
    if untrusted:
        lines.append(
            f"{untrusted} more finished with figures that cannot be right: these are left out of every"
            " table, and named below."
        )
    memory = headline_memory(table)
    for axis in axes:
        chains = chains_along(table, axis, axes)
        if not chains:
            continue
        chain = chains[0]
        first, last = chain.values.iloc[0], chain.values.iloc[-1]
        low, high = chain.values.index[0], chain.values.index[-1]
        parts = []
        for name, word in (
            ("step_median_s", "a step"),
            ("total_s", "the whole run"),
            (memory, memory_word(table)),
        ):
            if pd.notna(first[name]) and pd.notna(last[name]):
                parts.append(
                    f"{word} from {format_figure(name, first[name])} to {format_figure(name, last[name])}"
                    f" ({format_ratio(last[name] / first[name])})"
                )
        if axis == "train_size" and pd.notna(first["eval_accuracy"]):
            parts.insert(
                0, f"accuracy from {first['eval_accuracy']:.3f} to {last['eval_accuracy']:.3f}"
            )
        held = ", ".join(f"{axis_word(name)} {value}" for name, value in chain.held.items())
        lines.append(
            f"{axis_word(axis).capitalize()} {low} to {high} (at {held}): {'; '.join(parts)}."
        )
    return lines


def _damage(damaged: Sequence[str]) -> list[str]:
    return [
        f"{len(damaged)} records cannot be read and are left out: {'; '.join(damaged)}."
        " `ftbench run` moves them away and runs their cells again."
    ] * bool(damaged)


def _cell_notes(records: Sequence[Record]) -> list[str]:
    """Return what must be known about single cells: untrusted figures, warnings and failures."""
    notes = []
    for record in records:
        name = ", ".join(f"{axis_word(axis)} {record.axis_value(axis)}" for axis in record.axes)
        broken = untrusted_figures(record)
        if broken:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in broken.items())
            notes.append(f"untrusted: {name}: {reasons}")
        if record.measurement is not None and record.measurement.warnings:
            said = "; ".join(caution.message for caution in record.measurement.warnings)
            notes.append(f"(!) {name}: {said}")
        if record.failure is not None:
            at = f" at step {record.failure.step}" if record.failure.step else ""
            notes.append(f"{record.status}: {name}{at}: {record.failure.message}")
    return notes


def _reading_notes(
    table: pd.DataFrame,
    records: Sequence[Record],
    profile: Profile,
    preparation: Preparation,
) -> list[str]:
    """Return what the figures mean and what they do not."""
    data = records[0].cell.data
    seeds = table.groupby(varying_axes(records))["seed"].nunique()
    notes = []
    if table["eval_accuracy"].notna().any():
        error = 0.5 / math.sqrt(data.eval_size)
        spread = (
            f"cells were run up to {seeds.max()} times with different seeds, and ±"
            " is the standard deviation over them"
            if seeds.max() > 1
            else "every cell was run with one seed, so its spread over seeds is not known"
        )
        notes.append(
            f"Accuracy is over {data.eval_size} held-out documents, which alone gives it a standard error of up to"
            f" {error:.3f}; {spread}. The best epoch by that same accuracy is the one reported, as in the recipe,"
            " so it is slightly optimistic."
        )
        if table["train_size"].nunique() > 1:
            notes.append(
                "The number of epochs is fixed, so more documents also mean more optimizer steps:"
                " part of the rise of accuracy along documents is simply longer training."
            )
    else:
        reasons = {
            (r.measurement.absent.get("eval_accuracy") or "") for r in records if r.measurement
        } - {""}
        notes += [f"Accuracy is absent: {reason}." for reason in sorted(reasons)]
    split = preparation.eval_split
    if split == "from-train":
        notes.append(
            "Evaluation documents are held out from the training split (the last part of each class, so that"
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


def _environment_notes(
    records: Sequence[Record],
    environments: Mapping[str, Environment],
    preparation: Preparation,
) -> list[str]:
    """Return workload, hardware and packages."""
    cell = records[0].cell
    parameters = preparation.parameters
    notes = [
        f"Model: {cell.model.source.reference} ({parameters / 1e6:.2f} M parameters, {cell.model.weights} weights),"
        f" revision `{cell.model.source.revision}`.",
        f"Data: {cell.data.source.reference} (pools of {preparation.train_pool} and"
        f" {preparation.eval_pool} documents), revision `{cell.data.source.revision}`.",
    ]
    used = {record.environment_id for record in records}
    for name, environment in environments.items():
        if name not in used:
            continue
        device = environment.device
        card = f"; {device.name}, driver {environment.driver}" if device.kind == "cuda" else ""
        packages = ", ".join(
            f"{package} {version}" for package, version in environment.packages.items()
        )
        notes.append(
            f"Environment `{name}`: {environment.cpu}, {environment.cores} cores,"
            f" {format_bytes(environment.memory_bytes)}{card}; {environment.platform};"
            f" Python {environment.python}; {packages}; commit {environment.git_commit or 'unknown'}."
        )
    total = sum(record.wall_s for record in records)
    notes.append(f"{len(records)} runs took {format_seconds(total)} altogether.")
    return notes


def _reproduction(profile: Profile) -> list[str]:
    """Return the command that makes this run directory again."""
    overrides = "".join(f" --set {shlex.quote(text)}" for text in profile.overrides)
    return [f"`ftbench run {shlex.quote(profile.reference or profile.name)}{overrides}`"]
