"""Measured: whether the runs of two versions say that something moved, each figure by its own noise. Pure.

    torch's peaks    the medians may differ by half a percent: they are near-deterministic
    sampled peaks    (NVML's, and RSS where torch counts nothing) within the 95 % prediction interval of one
                     more reading, by the readings of the baseline
    accuracy         may not fall by more than seeds and the evaluation documents explain: Welch's t
    time             a rank test of pairs that were run one after the other, since machines drift

The time test is Wilcoxon's signed-rank test on the logarithms of the ratios of pairs, to the side of slower,
of the fastest steps and of whole runs. It and that of accuracy are made at 5 % over all cells of a profile
(Holm 1979): so often a version is called slower, or worse, that is not. Wilcoxon, "Individual comparisons by
ranking methods" (1945). Sampled peaks are judged at 5 % a cell.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtr

from ftbench.analysis.comparisons.contrast import NORMAL_FROM, SCORE_ERROR, combined, mean_scores
from ftbench.analysis.fits.regression import student
from ftbench.analysis.tables.cells_table import UNTRUSTED, cells_table
from ftbench.base.units import MIB
from ftbench.gate.baseline import Measured, MeasuredCell
from ftbench.gate.compare import Change, GateResult, Moved, Verdict, others
from ftbench.plan.cell import Cell
from ftbench.plan.groups import common_facets, names_of
from ftbench.plan.scores import ACCURACY
from ftbench.plan.settings import moving_only
from ftbench.records.figures import READINGS
from ftbench.records.record import Environment, Record
from ftbench.records.scores import share_variance

# Counted by torch's allocators, so near-deterministic.
TORCH_PEAKS = (
    *(one.name for one in READINGS if one.place == "torch"),
    "peak_cpu_tensors_bytes",
)
TORCH_TOLERANCE = 0.005
NVML_PEAK, RSS_PEAK = "peak_process_bytes", "peak_rss_bytes"
# What the readings come in: NVML's pages, and what glibc asks the kernel for.
_GRAIN_BYTES = {NVML_PEAK: 2 * MIB, RSS_PEAK: MIB}
FEWEST_RUNS = 3
# What a cell's time is judged by: of steps the fastest, or the median where records have no fastest, and the
# whole run. Other work on a machine only adds to a step, and the minimum is what it adds least to (Chen and
# Revels 2016, "Robust benchmarking in noisy environments"); what is slow beside the steps shows in the total.
TIMES = (("step_min_s", "step_median_s"), ("total_s",))
_TIMES = tuple(itertools.chain(*TIMES))
FALSE_ALARMS = 0.05
FEWEST_PAIRS = 5  # of four pairs no order is rarer than one in sixteen
# What --across-versions compares across; another device or driver is another thing.
VERSIONS = ("torch", "transformers", "accelerate", "cuda")
# Runs of one cell differ in these alone; a learning rate moves accuracy.
_FREE = frozenset({"seed"}) | moving_only()

Place = tuple[str, str]  # a group and a cell of it, by name


@dataclasses.dataclass(frozen=True)
class Samples:
    """The trusted runs of one cell, in the order in which they began.

    `figures` has a value a run, `started` when each began; `accuracies` has one a seed.
    """

    figures: Mapping[str, tuple[float, ...]]
    started: tuple[str, ...]
    accuracies: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a run directory.

    `machine` has the device and the versions that they were measured with, `workload` what all cells have in
    common. `oom` are the cells that ran out of memory; `doubts` say which runs are not among the samples.
    """

    samples: Mapping[Place, Samples]
    machine: Mapping[str, str]
    workload: Mapping[str, Any]
    oom: frozenset[Place] = frozenset()
    doubts: tuple[str, ...] = ()

    def only(self, grid: Iterable[Cell], chosen: Iterable[Cell]) -> Runs:
        """Return the runs of the chosen cells of a grid."""
        names = names_of(grid, _of_runs)
        places = {names[cell.cell_id] for cell in chosen}
        samples = {place: own for place, own in self.samples.items() if place in places}
        return dataclasses.replace(self, samples=samples, oom=self.oom & places)


def runs_of(
    records: Sequence[Record],
    environments: Mapping[str, Environment],
    damaged: int = 0,
    *,
    grid: Iterable[Cell] = (),
    chosen: Iterable[Cell] | None = None,
    wanted: Iterable[Cell] = (),
) -> Runs:
    """Return the runs of a directory's records, of which so many could not be read.

    Cells have the names that they have in the grid, however few of it were run. With `chosen` only their
    runs count. Cells that are wanted and have no record are among the doubts.
    """
    cells = list({cell.cell_id: cell for cell in (*grid, *(r.cell for r in records))}.values())
    names = names_of(cells, _of_runs)
    if chosen is not None:
        kept = {cell.cell_id for cell in chosen}
        records = [record for record in records if record.cell_id in kept]
    began = {(r.cell_id, r.replicate, r.repeat): r.started_at for r in records}
    table = cells_table(list(records))
    rows: dict[Place, list[dict[Any, Any]]] = {}
    for row in table[table["status"] == "ok"].to_dict("records"):
        started = began[row["cell_id"], row["replicate"], row["repeat"]]
        rows.setdefault(names[row["cell_id"]], []).append({**row, "started": started})
    statuses = table["status"].value_counts().to_dict()
    left_out = {name: count for name, count in statuses.items() if name not in ("ok", "oom")}
    doubts = [
        f"{count} runs have figures that cannot be right"
        if name == UNTRUSTED
        else f"{count} runs ended as {name}"
        for name, count in left_out.items()
    ]
    if missing := {cell.cell_id for cell in wanted} - {record.cell_id for record in records}:
        doubts.append(f"{len(missing)} cells of the profile have no run")
    if damaged:
        doubts.append(f"{damaged} records cannot be read")
    used = {record.environment_id for record in records if record.status in ("ok", "oom")}
    if unknown := sorted(used - environments.keys()):
        doubts.append(f"where runs were measured is not known: no environment {', '.join(unknown)}")
    return Runs(
        samples={place: _samples(own) for place, own in rows.items()},
        machine=machine_of(one for name, one in environments.items() if name in used),
        workload=common_facets(cells, _of_runs),
        oom=frozenset(names[record.cell_id] for record in records if record.status == "oom"),
        doubts=tuple(doubts),
    )


def _of_runs(facets: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facets.items() if name not in _FREE}


def _samples(rows: list[dict[Any, Any]]) -> Samples:
    rows = sorted(rows, key=lambda row: str(row["started"]))
    figures = {}
    for name in (*TORCH_PEAKS, *_GRAIN_BYTES, *_TIMES):
        values = [float(row[name]) for row in rows if pd.notna(row[name])]
        whole = name not in _TIMES or len(values) == len(rows)  # times are told by their place
        if values and whole:
            figures[name] = tuple(values)
    accuracies: dict[str, float] = {}
    for row in rows:
        if pd.notna(row["eval_accuracy"]):
            accuracies.setdefault(str(row["seed"]), float(row["eval_accuracy"]))
    return Samples(figures, tuple(str(row["started"]) for row in rows), accuracies)


def machine_of(environments: Iterable[Environment]) -> dict[str, str]:
    """Return what measured figures depend on beside the code: the device, its driver, the libraries."""
    found: dict[str, set[str]] = {}
    for one in environments:
        facts = {"device": one.device.name, "driver": one.driver, "cuda": one.cuda}
        facts |= {name: one.packages.get(name) for name in VERSIONS if name != "cuda"}
        for name, fact in facts.items():
            if fact is not None:
                found.setdefault(name, set()).add(fact)
    return {name: " and ".join(sorted(facts)) for name, facts in sorted(found.items())}


def measured_of(runs: Runs) -> Measured:
    """Return runs as a baseline keeps them."""
    cells: dict[str, dict[str, MeasuredCell]] = {}
    for (group, cell), one in runs.samples.items():
        kept = MeasuredCell(figures=dict(one.figures), accuracies=dict(one.accuracies))
        cells.setdefault(group, {})[cell] = kept
    return Measured(machine=dict(runs.machine), workload=dict(runs.workload), cells=cells)


def kept_runs(measured: Measured) -> Runs:
    """Return the runs that a baseline keeps; when they began is not known any more."""
    samples = {
        (group, name): Samples(cell.figures, (), cell.accuracies)
        for group, cells in measured.cells.items()
        for name, cell in cells.items()
    }
    return Runs(samples, measured.machine, measured.workload)


def compare_measured(
    profile: str,
    before: Runs,
    after: Runs,
    *,
    across_versions: bool = False,
    judge_time: bool = False,
) -> GateResult:
    """Return what the runs of two versions say of each other.

    Runs of other libraries are judged `across_versions` only, of another device or workload not at all. Time
    is judged where runs alternate; with `judge_time` it must be.
    """
    versions = tuple(
        Moved(name, before.machine.get(name, "none"), after.machine.get(name, "none"))
        for name in VERSIONS
        if before.machine.get(name) != after.machine.get(name)
    )
    unjudged = [*_elsewhere(before, after)]
    if versions and not across_versions:
        unjudged += [f"other versions: {v.package} {v.before} -> {v.after}" for v in versions]
    if unjudged:
        return GateResult(profile, (), unjudged=tuple(unjudged), versions=versions)
    ours, theirs = before.samples, after.samples
    both = [place for place in ours if place in theirs]
    unjudged = [*before.doubts, *after.doubts]
    unjudged += [f"{_said(p)}: no run of it now" for p in ours if p not in {*theirs, *after.oom}]
    known = ours.keys() | before.oom
    unjudged += [
        f"{_said(p)}: no run of it in the baseline"
        for p in [*theirs, *sorted(after.oom - theirs.keys())]
        if p not in known
    ]
    changes = [
        Change(*place, "fits", "", "ok", "oom", "regression")
        for place in ours
        if place in after.oom and (place not in before.oom or place not in theirs)
    ]
    notes: list[str] = []
    sides = {place: (ours[place], theirs[place]) for place in both}
    for place in both:
        found, missing = _peaks(place, *sides[place])
        changes += found
        unjudged += missing
    worse, missing, unsure = _accuracies(sides, before.workload.get("eval_size"))
    unjudged += missing
    notes += unsure
    slow, reasons = _times(sides)
    (unjudged if judge_time else notes).extend(reasons)
    order = {place: number for number, place in enumerate(ours)}
    return GateResult(
        profile=profile,
        judged=tuple(place for place in ours if place in theirs or place in after.oom),
        changes=tuple(
            sorted([*changes, *worse, *slow], key=lambda c: (order[c.group, c.where], c.kind, c.of))
        ),
        unjudged=tuple(dict.fromkeys(unjudged)),
        versions=versions,
        notes=tuple(dict.fromkeys(notes)),
    )


def _elsewhere(before: Runs, after: Runs) -> Iterator[str]:
    """Yield in what two directories are not of one and the same thing."""
    machines = (
        {name: value for name, value in runs.machine.items() if name not in VERSIONS}
        for runs in (before, after)
    )
    yield from others("machine", *machines)
    yield from others("workload", before.workload, after.workload)


def _said(place: Place) -> str:
    return ": ".join(filter(None, place))


def _peaks(place: Place, before: Samples, after: Samples) -> tuple[list[Change], list[str]]:
    """Return the peaks that moved, and those that could not be compared."""
    names = [name for name in (*TORCH_PEAKS, NVML_PEAK) if name in before.figures]
    if not any(name in TORCH_PEAKS for name in names) and RSS_PEAK in before.figures:
        names.append(RSS_PEAK)
    changes, missing = [], []
    for name in names:
        if name not in after.figures:
            missing.append(f"{_said(place)}: {name} was not measured now")
            continue
        ours, theirs = before.figures[name], after.figures[name]
        one, other = statistics.median(ours), statistics.median(theirs)
        allowed, note = TORCH_TOLERANCE * one, f"more than {TORCH_TOLERANCE:.1%}"
        if name in _GRAIN_BYTES:
            if len(ours) < FEWEST_RUNS:
                few = f"is known from {len(ours)} runs only, {FEWEST_RUNS} are needed"
                missing.append(f"{_said(place)}: how {name} varies {few}")
                continue
            one = statistics.mean(ours)
            spread = statistics.stdev(ours) * (1 + 1 / len(ours)) ** 0.5
            allowed = student(len(ours) - 1) * spread + _GRAIN_BYTES[name]
            note = f"more than {allowed / MIB:.0f} MiB, by the spread of {len(ours)} runs"
        if abs(other - one) > allowed:
            verdict: Verdict = "regression" if other > one else "drop"
            changes.append(Change(*place, "measured peak", name, one, other, verdict, note))
    if not names:
        missing.append(f"{_said(place)}: no figure of memory in the baseline")
    return changes, missing


def _accuracies(
    sides: Mapping[Place, tuple[Samples, Samples]], eval_size: int | None
) -> tuple[list[Change], list[str], list[str]]:
    """Return the falls of accuracy that seeds and documents do not explain, what is missing, and notes.

    More is no regression. The spread of few seeds is that of all cells of a side; where no cell has two
    seeds a fall may be the seed's, and is not judged. The evaluation documents' error has `eval_size` in it.
    """
    missing = [
        f"{_said(place)}: its accuracy was not measured now"
        for place, (ours, theirs) in sides.items()
        if ours.accuracies and not theirs.accuracies
    ]
    points: dict[tuple[Hashable, ...], list[dict[Hashable, Any]]] = {
        (side, *place): [
            {"seed": seed, ACCURACY.column: value, SCORE_ERROR: _error(value, eval_size)}
            for seed, value in one.accuracies.items()
        ]
        for place, pair in sides.items()
        for side, one in enumerate(pair)
    }
    if not any(len(runs) > 1 for runs in points.values()):
        single = any(points.values())
        return [], missing, ["accuracy: one seed says nothing of others"] if single else []
    scores = mean_scores(points, ACCURACY.column)
    means = {point: score.estimate for point, score in scores.items()}
    falls: dict[Place, float] = {}
    for place in sides:
        if (0, *place) in means and (1, *place) in means:
            fall = combined((1.0, -1.0), (means[1, *place], means[0, *place]))
            deviation = math.sqrt(fall.variance or 0.0)
            falls[place] = (
                float(stdtr(min(fall.df, NORMAL_FROM), fall.value / deviation))
                if deviation
                else float(fall.value >= 0)
            )
    changes = []
    for place in told_apart(falls):
        seeds = " and ".join(str(len(side.accuracies)) for side in sides[place])
        note = f"over {seeds} seeds, p = {falls[place]:.2g}"
        old, new = (means[side, *place].value for side in (0, 1))
        changes.append(Change(*place, "accuracy", "", old, new, "regression", note))
    return changes, missing, []


def _error(accuracy: float, eval_size: int | None) -> float | None:
    """Return the standard error of an accuracy over so many examples; None if they are not known."""
    return math.sqrt(share_variance(accuracy, eval_size)) if eval_size else None


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


def _times(sides: Mapping[Place, tuple[Samples, Samples]]) -> tuple[list[Change], list[str]]:
    """Return the cells that are slower, at one rate of false alarms over all, and why others are not judged."""
    found: dict[tuple[Place, str], Slowdown] = {}
    reasons: list[str] = []
    for place, (ours, theirs) in sides.items():
        pairs = min(len(ours.started), len(theirs.started))
        names = _both_have(ours, theirs)
        if not ours.started:
            reasons.append("time: it is judged between two run directories whose runs alternate")
        elif not names:
            reasons.append(f"time: {_said(place)} has none on both sides")
        elif pairs < FEWEST_PAIRS:
            reasons.append(f"time: {pairs} pairs of runs of a cell, {FEWEST_PAIRS} are needed")
        elif not interleaved(ours.started, theirs.started):
            reasons.append("time: the runs of the two do not alternate, and machines drift")
        else:
            for name in names:
                series = (ours.figures[name][:pairs], theirs.figures[name][:pairs])
                found[place, name] = slowdown(*series)
    needed = math.ceil(math.log2(max(len(found), 1) / FALSE_ALARMS))
    if few := [key for key, one in found.items() if one.pairs < needed]:
        named = ", ".join(dict.fromkeys(_said(place) for place, _ in few))
        reasons.append(f"time: {needed} pairs are needed to judge {len(found)} figures: {named}")
        found = {key: one for key, one in found.items() if key not in few}
    changes = []
    for place, name in told_apart({key: one.p_value for key, one in found.items()}):
        one = found[place, name]
        note = f"{one.ratio:.3f}x over {one.pairs} pairs, p = {one.p_value:.2g}"
        old, new = (statistics.median(side.figures[name]) for side in sides[place])
        changes.append(Change(*place, "time", name, old, new, "regression", note))
    return changes, reasons


def _both_have(ours: Samples, theirs: Samples) -> list[str]:
    """Return the times that a cell is judged by: of each kind the first that both sides have."""
    first = (
        next((n for n in names if n in ours.figures and n in theirs.figures), None)
        for names in TIMES
    )
    return [name for name in first if name is not None]


def interleaved(before: Sequence[str], after: Sequence[str]) -> bool:
    """Return whether two series of runs alternate: of no pair a run began after one of the next pair."""
    pairs = list(zip(before, after, strict=False))
    return all(max(pair) < min(following) for pair, following in itertools.pairwise(pairs))


_Key = TypeVar("_Key")


def told_apart(p_values: Mapping[_Key, float]) -> list[_Key]:
    """Return what is told apart at the rate of false alarms over all: the least p first, until one fails."""
    ordered = sorted(p_values, key=lambda key: p_values[key])
    for number, key in enumerate(ordered):
        if p_values[key] > FALSE_ALARMS / (len(ordered) - number):
            return ordered[:number]
    return ordered
