"""Measured: whether the runs of two versions say that something moved, each figure by its own noise. Pure.

    torch's peaks    the medians may differ by half a percent: they are near-deterministic
    NVML's           by no more than its readings of one version differ among each other
    accuracy         by no more than seeds do (Welch's t on the means over seeds)
    time             a rank test of pairs that were run one after the other, since machines drift

The time test is Wilcoxon's signed-rank test on the logarithms of the ratios of pairs, to the side of slower,
at 5 % over all cells of a profile (Holm 1979): so often it calls a version slower that is not. Wilcoxon,
"Individual comparisons by ranking methods" (1945).
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.contrast import Estimate, difference
from bench.analysis.gate import Change, GateResult, Verdict
from bench.analysis.summary import UNTRUSTED, cells_table
from bench.baseline import Measured, MeasuredCell, names_of
from bench.record import Environment, Record
from bench.units import MIB

TORCH_PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_cpu_tensors_bytes")
TORCH_TOLERANCE = 0.005
NVML_PEAK = "peak_process_bytes"
# NVML counts in pages of 2 MiB, and from fewer runs nobody knows how its readings differ.
NVML_PAGE_BYTES = 2 * MIB
FEWEST_RUNS = 3
TIMES = ("step_median_s", "total_s")  # the first that is there
FALSE_ALARMS = 0.05
FEWEST_PAIRS = 5  # of four pairs no order is rarer than one in sixteen

Place = tuple[str, str]  # a group and a cell of it, by name


@dataclasses.dataclass(frozen=True)
class Samples:
    """The trusted runs of one cell, in the order in which they began.

    `figures` has a value a run, `started` when each began; `accuracies` has one a seed.
    """

    figures: Mapping[str, tuple[float, ...]]
    started: tuple[str, ...]
    accuracies: Mapping[str, float]


def samples_of(records: Sequence[Record]) -> dict[Place, Samples]:
    """Return the runs of every cell that has a trusted one."""
    names = names_of({record.cell_id: record.cell for record in records}.values())
    began = {(r.cell_id, r.replicate, r.repeat): r.started_at for r in records}
    table = cells_table(list(records))
    runs: dict[Place, list[dict[Any, Any]]] = {}
    for row in table[table["status"] == "ok"].to_dict("records"):
        key = (row["cell_id"], row["replicate"], row["repeat"])
        runs.setdefault(names[row["cell_id"]], []).append({**row, "started": began[key]})
    return {place: _samples(rows) for place, rows in runs.items()}


def _samples(rows: list[dict[Any, Any]]) -> Samples:
    rows = sorted(rows, key=lambda row: str(row["started"]))
    figures = {}
    for name in (*TORCH_PEAKS, NVML_PEAK, *TIMES):
        values = [float(row[name]) for row in rows if pd.notna(row[name])]
        if len(values) == len(rows):
            figures[name] = tuple(values)
    accuracies: dict[str, float] = {}
    for row in rows:
        if pd.notna(row["eval_accuracy"]):
            accuracies.setdefault(str(row["seed"]), float(row["eval_accuracy"]))
    return Samples(figures, tuple(str(row["started"]) for row in rows), accuracies)


def untrusted(records: Sequence[Record]) -> int:
    """Return how many runs have figures that cannot be right."""
    return int((cells_table(list(records))["status"] == UNTRUSTED).sum())


def compare_measured(
    profile: str,
    before: Mapping[Place, Samples],
    after: Mapping[Place, Samples],
    *,
    distrusted: int = 0,
    judge_time: bool = False,
) -> GateResult:
    """Return what the runs of two versions say of each other.

    `distrusted` runs of the new version have figures that cannot be right: they are not judged. Time is
    judged where runs alternate; with `judge_time` it must be.
    """
    unjudged = [f"{_said(place)}: no run of it now" for place in before if place not in after]
    unjudged += [f"{_said(p)}: no run of it in the baseline" for p in after if p not in before]
    if distrusted:
        unjudged.append(f"{distrusted} runs have figures that cannot be right")
    changes: list[Change] = []
    for place in before.keys() & after.keys():
        found = [_peaks(place, before[place], after[place]), _accuracy(place, before, after)]
        for one in itertools.chain(*found):
            if isinstance(one, Change):
                changes.append(one)
            else:
                unjudged.append(one)
    slow, reasons = _times(before, after)
    not_paired = list(dict.fromkeys(reasons))
    order = {place: number for number, place in enumerate(before)}
    changes = sorted([*changes, *slow], key=lambda c: (order[c.group, c.where], c.kind, c.of))
    return GateResult(
        profile=profile,
        judged=tuple(place for place in before if place in after),
        changes=tuple(changes),
        unjudged=(*unjudged, *(not_paired if judge_time else ())),
        notes=() if judge_time else tuple(not_paired),
    )


_VERSIONS = ("torch", "transformers", "accelerate")


def machine_of(environments: Iterable[Environment]) -> dict[str, str]:
    """Return what measured figures depend on beside the code: the device, its driver, the libraries."""
    found: dict[str, set[str]] = {}
    for one in environments:
        facts = {"device": one.device.name, "driver": one.driver, "cuda": one.cuda}
        facts |= {name: one.packages.get(name) for name in _VERSIONS}
        for name, fact in facts.items():
            if fact is not None:
                found.setdefault(name, set()).add(fact)
    return {name: " and ".join(sorted(facts)) for name, facts in found.items()}


def measured_of(samples: Mapping[Place, Samples], machine: Mapping[str, str]) -> Measured:
    """Return the runs of cells as a baseline keeps them."""
    cells: dict[str, dict[str, MeasuredCell]] = {}
    for (group, cell), one in samples.items():
        kept = MeasuredCell(figures=dict(one.figures), accuracies=dict(one.accuracies))
        cells.setdefault(group, {})[cell] = kept
    return Measured(machine=dict(machine), cells=cells)


def kept_samples(measured: Measured) -> dict[Place, Samples]:
    """Return the runs that a baseline keeps; when they began is not known any more."""
    return {
        (group, name): Samples(cell.figures, (), cell.accuracies)
        for group, cells in measured.cells.items()
        for name, cell in cells.items()
    }


def elsewhere(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return in what two machines differ, in words."""
    return [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _said(place: Place) -> str:
    return ": ".join(filter(None, place))


def _peaks(place: Place, before: Samples, after: Samples) -> Iterator[Change | str]:
    for name in (*TORCH_PEAKS, NVML_PEAK):
        if name not in before.figures or name not in after.figures:
            continue
        ours, theirs = before.figures[name], after.figures[name]
        one, other = statistics.median(ours), statistics.median(theirs)
        allowed, note = TORCH_TOLERANCE * one, f"more than {TORCH_TOLERANCE:.1%}"
        if name == NVML_PEAK:
            if len(ours) < FEWEST_RUNS:
                yield (
                    f"{_said(place)}: NVML's readings are known from {len(ours)} runs only,"
                    f" {FEWEST_RUNS} are needed"
                )
                continue
            allowed = max(ours) - min(ours) + NVML_PAGE_BYTES
            note = f"more than {allowed / MIB:.0f} MiB, as its readings differ"
        if abs(other - one) > allowed:
            verdict: Verdict = "regression" if other > one else "drop"
            yield Change(*place, "measured peak", name, one, other, verdict, note)


def _accuracy(
    place: Place, before: Mapping[Place, Samples], after: Mapping[Place, Samples]
) -> Iterator[Change | str]:
    """Yield a fall of accuracy that is larger than seeds explain; more is no regression."""
    ours, theirs = (list(side[place].accuracies.values()) for side in (before, after))
    if len(ours) < 2 or len(theirs) < 2:
        return  # one seed says nothing of others
    found = difference(_mean(theirs), _mean(ours))
    if found.verdict == "less":
        note = f"over {len(theirs)} seeds"
        one, other = statistics.mean(ours), statistics.mean(theirs)
        yield Change(*place, "accuracy", "", one, other, "regression", note)


def _mean(values: Sequence[float]) -> Estimate:
    count = len(values)
    return Estimate(statistics.mean(values), statistics.variance(values) / count, count - 1)


@dataclasses.dataclass(frozen=True)
class Slowdown:
    """What pairs of runs say: how many there are, their median ratio, and how likely that is by chance."""

    pairs: int
    ratio: float
    p_value: float


def slowdown(before: Sequence[float], after: Sequence[float]) -> Slowdown:
    """Return what pairs of times say of the second being slower; the k-th of both are a pair."""
    from scipy.stats import wilcoxon  # half a second to load: only where times are compared

    logs = np.log(np.asarray(after, dtype=float) / np.asarray(before, dtype=float))
    p_value = float(wilcoxon(logs, alternative="greater").pvalue) if np.any(logs) else 1.0
    return Slowdown(len(logs), float(np.exp(np.median(logs))), p_value)


def _times(
    before: Mapping[Place, Samples], after: Mapping[Place, Samples]
) -> tuple[list[Change], list[str]]:
    """Return the cells that are slower, at one rate of false alarms over all, and why others are not judged."""
    found: dict[Place, tuple[str, Slowdown]] = {}
    reasons: list[str] = []
    for place in before.keys() & after.keys():
        name = next((n for n in TIMES if all(n in s[place].figures for s in (before, after))), None)
        if name is None:
            continue
        ours, theirs = before[place], after[place]
        pairs = min(len(ours.started), len(theirs.started))
        if not ours.started:
            reasons.append("time: it is judged between two run directories whose runs alternate")
        elif pairs < FEWEST_PAIRS:
            reasons.append(f"time: {pairs} pairs of runs of a cell, {FEWEST_PAIRS} are needed")
        elif not interleaved(ours.started, theirs.started):
            reasons.append("time: the runs of the two do not alternate, and machines drift")
        else:
            series = (ours.figures[name][:pairs], theirs.figures[name][:pairs])
            found[place] = (name, slowdown(*series))
    changes = []
    for place in _holm({place: one.p_value for place, (_, one) in found.items()}):
        name, one = found[place]
        note = f"{one.ratio:.3f}x over {one.pairs} pairs, p = {one.p_value:.2g}"
        old, new = (statistics.median(side[place].figures[name]) for side in (before, after))
        changes.append(Change(*place, "time", name, old, new, "regression", note))
    return changes, reasons


def interleaved(before: Sequence[str], after: Sequence[str]) -> bool:
    """Return whether two series of runs alternate: of no pair a run began after one of the next pair."""
    pairs = list(zip(before, after, strict=False))
    return all(max(pair) < min(following) for pair, following in itertools.pairwise(pairs))


def _holm(p_values: Mapping[Place, float]) -> Iterable[Place]:
    """Return what is told apart at the rate of false alarms over all: the least p first, until one fails."""
    ordered = sorted(p_values, key=lambda place: p_values[place])
    for number, place in enumerate(ordered):
        if p_values[place] > FALSE_ALARMS / (len(ordered) - number):
            return ordered[:number]
    return ordered
