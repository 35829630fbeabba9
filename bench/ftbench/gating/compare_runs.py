"""Compare runs: whether the runs of two versions show a change, each figure judged by its own noise. Pure.

    torch's peaks    the medians may differ by half a percent: they are near-deterministic
    sampled peaks    (NVML's, and RSS if torch counts nothing) within the 95 % prediction interval of one
                     more reading, by the readings of the baseline
    score            may not fall by more than seeds and the evaluation examples explain: Welch's t
    time             a rank test of pairs that were run one after the other, since machines drift

The time test is Wilcoxon's signed-rank test on the logarithms of the ratios of pairs, to the side of slower,
of the fastest steps and of whole runs. It and the test of scores are made at 5 % over all cells of a profile
(Holm 1979): that is how often a version is called slower, or worse, that is not. Wilcoxon, "Individual
comparisons by ranking methods" (1945). Sampled peaks are judged at 5 % per cell.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import stdtr

from ftbench.analysis.comparisons.contrast import NORMAL_FROM, combined, mean_scores
from ftbench.analysis.fits.regression import student
from ftbench.analysis.tables.cells_table import SCORE_ERROR
from ftbench.gating.compare import rise, version_changes
from ftbench.gating.measured_runs import (
    GRAIN_BYTES,
    NVML_PEAK,
    RSS_PEAK,
    TIMES,
    TORCH_PEAKS,
    VERSIONS,
    Runs,
    Samples,
)
from ftbench.gating.places import Place
from ftbench.gating.reasons import (
    CellMissing,
    Differs,
    FigureMissing,
    NoMemoryFigure,
    NotAlternating,
    NoTimes,
    OtherVersions,
    Reason,
    SingleSeed,
    TooFewPairs,
    TooFewPairsForAll,
    TooFewReadings,
    VersionChange,
)
from ftbench.gating.result import (
    GateResult,
    MeasuredPeakChange,
    OutOfMemory,
    ScoreChange,
    TimeChange,
)
from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.plan.settings import differing

TORCH_TOLERANCE = 0.005
FEWEST_RUNS = 3
FALSE_ALARMS = 0.05
FEWEST_PAIRS = 5  # of four pairs no order is rarer than one in sixteen

Sides = Mapping[Place, tuple[Samples, Samples]]

_VALUE = "score"  # the column of the score, in the rows that are compared


def compare_measured(
    profile: str,
    before: Runs,
    after: Runs,
    *,
    across_versions: bool = False,
    require_time: bool = False,
) -> GateResult:
    """Return what the runs of two versions say of each other.

    Runs of other libraries are judged only `across_versions`, of another device or workload not at all. Time is
    judged if runs alternate; with `require_time` it must be.
    """
    versions = _versions(before, after)
    elsewhere: list[Reason] = [*_elsewhere(before, after)]
    if versions and not across_versions:
        elsewhere.append(OtherVersions(versions))
    if elsewhere:
        return GateResult(profile, (), unjudged=tuple(elsewhere), versions=versions)
    ours, theirs = before.samples, after.samples
    sides = {place: (ours[place], theirs[place]) for place in ours if place in theirs}
    oom = [
        OutOfMemory(place)
        for place in ours
        if place in after.oom and (place not in before.oom or place not in theirs)
    ]
    peaks, no_peaks = _peaks(sides)
    falls, no_scores, unsure = _scores(sides)
    slow, no_times = _times(sides)
    unjudged = [*before.doubts, *after.doubts, *_missing(before, after), *no_peaks, *no_scores]
    notes = list(unsure)
    (unjudged if require_time else notes).extend(no_times)
    order = {place: number for number, place in enumerate(ours)}
    changes: list[OutOfMemory | MeasuredPeakChange | ScoreChange | TimeChange] = [
        *oom,
        *peaks,
        *falls,
        *slow,
    ]
    changes.sort(key=lambda change: order[change.place])
    return GateResult(
        profile=profile,
        judged=tuple(place for place in ours if place in theirs or place in after.oom),
        changes=tuple(changes),
        unjudged=tuple(dict.fromkeys(unjudged)),
        versions=versions,
        notes=tuple(dict.fromkeys(notes)),
    )


def _versions(before: Runs, after: Runs) -> tuple[VersionChange, ...]:
    ours, theirs = (
        {name: runs.machine[name] for name in VERSIONS if name in runs.machine}
        for runs in (before, after)
    )
    return version_changes(ours, theirs)


def _elsewhere(before: Runs, after: Runs) -> Iterator[Differs]:
    """Yield in what the runs are not of the same thing."""
    ours, theirs = (
        {name: value for name, value in runs.machine.items() if name not in VERSIONS}
        for runs in (before, after)
    )
    for name in differing(ours, theirs):
        yield Differs("machine", name, ours.get(name), theirs.get(name))
    for name in differing(before.workload, after.workload):
        yield Differs("workload", name, before.workload.get(name), after.workload.get(name))


def _missing(before: Runs, after: Runs) -> Iterator[CellMissing]:
    """Yield the cells that only one side has runs of."""
    known_before, known_now = ({*runs.samples, *runs.oom} for runs in (before, after))
    for place in before.samples:
        if place not in known_now:
            yield CellMissing(place, "now")
    for place in (*after.samples, *after.oom):
        if place not in known_before:
            yield CellMissing(place, "baseline")


def _peaks(sides: Sides) -> tuple[list[MeasuredPeakChange], list[Reason]]:
    """Return the peaks that changed, and why others could not be compared."""
    changes: list[MeasuredPeakChange] = []
    missing: list[Reason] = []
    for place, (before, after) in sides.items():
        names = [name for name in (*TORCH_PEAKS, NVML_PEAK) if name in before.figures]
        if not any(name in TORCH_PEAKS for name in names) and RSS_PEAK in before.figures:
            names.append(RSS_PEAK)
        if not names:
            missing.append(NoMemoryFigure(place))
        for name in names:
            if name not in after.figures:
                missing.append(FigureMissing(place, name))
            elif name in GRAIN_BYTES and len(before.figures[name]) < FEWEST_RUNS:
                runs = len(before.figures[name])
                missing.append(TooFewReadings(place, name, runs, FEWEST_RUNS))
            else:
                change = _peak(place, name, before.figures[name], after.figures[name])
                if abs(change.after - change.before) > change.allowed_bytes:
                    changes.append(change)
    return changes, missing


def _peak(
    place: Place, figure: str, before: Sequence[float], after: Sequence[float]
) -> MeasuredPeakChange:
    """Return how a peak differs, and how much of that is allowed."""
    now = statistics.median(after)
    if figure not in GRAIN_BYTES:
        usual, readings = statistics.median(before), None
        allowed = TORCH_TOLERANCE * usual
    else:
        usual, readings = statistics.mean(before), len(before)
        spread = statistics.stdev(before) * (1 + 1 / readings) ** 0.5
        allowed = student(readings - 1) * spread + GRAIN_BYTES[figure]
    return MeasuredPeakChange(place, figure, usual, now, allowed, readings, rise(usual, now))


def _scores(sides: Sides) -> tuple[list[ScoreChange], list[Reason], list[Reason]]:
    """Return the falls of scores that seeds and evaluation examples do not explain, the missing ones, and notes.

    More is no regression (higher is better in each score that stands for a run). The spread of few seeds is that
    of all cells of a side; if no cell has two seeds a fall may be the seed's, and is not judged.
    """
    missing: list[Reason] = [
        FigureMissing(place, SCORE_KINDS[ours.score].column)
        for place, (ours, theirs) in sides.items()
        if ours.scores and (not theirs.scores or ours.score != theirs.score)
    ]
    points: dict[tuple[Hashable, ...], list[dict[Hashable, Any]]] = {
        (side, place): [
            {"seed": seed, _VALUE: score.value, SCORE_ERROR: score.standard_error}
            for seed, score in one.scores.items()
        ]
        for place, pair in sides.items()
        for side, one in enumerate(pair)
        if pair[0].score == pair[1].score
    }
    if not any(len(runs) > 1 for runs in points.values()):
        return [], missing, [SingleSeed()] if any(points.values()) else []
    means = {point: score.estimate for point, score in mean_scores(points, _VALUE).items()}
    falls: dict[Place, float] = {}
    for place in sides:
        if (0, place) in means and (1, place) in means:
            fall = combined((1.0, -1.0), (means[1, place], means[0, place]))
            deviation = math.sqrt(fall.variance or 0.0)
            falls[place] = (
                float(stdtr(min(fall.df, NORMAL_FROM), fall.value / deviation))
                if deviation
                else float(fall.value >= 0)
            )
    changes = []
    for place in told_apart(falls):
        before, after = sides[place]
        seeds = (len(before.scores), len(after.scores))
        old, new = (means[side, place].value for side in (0, 1))
        changes.append(ScoreChange(place, before.score, old, new, seeds, falls[place]))
    return changes, missing, []


@dataclasses.dataclass(frozen=True)
class Slowdown:
    """What pairs of runs say: how many there are, their median ratio, and how likely that is by chance."""

    pairs: int
    ratio: float
    p_value: float


def slowdown(before: Sequence[float], after: Sequence[float]) -> Slowdown:
    """Return what pairs of times say of the second being slower; the k-th of both are a pair."""
    from scipy.stats import wilcoxon  # half a second to load: only if times are compared

    logs = np.log(np.asarray(after, dtype=float) / np.asarray(before, dtype=float))
    p_value = float(wilcoxon(logs, alternative="greater").pvalue) if np.any(logs) else 1.0
    return Slowdown(len(logs), float(np.exp(np.median(logs))), p_value)


def _times(sides: Sides) -> tuple[list[TimeChange], list[Reason]]:
    """Return the cells that are slower, at one rate of false alarms over all, and why others are not judged."""
    found: dict[tuple[Place, str], Slowdown] = {}
    reasons: list[Reason] = []
    for place, (ours, theirs) in sides.items():
        names = _both_have(ours, theirs)
        pairs = min(len(ours.started), len(theirs.started))
        if reason := _not_paired(place, ours, theirs, names):
            reasons.append(reason)
            continue
        for name in names:
            series = (ours.figures[name][:pairs], theirs.figures[name][:pairs])
            found[place, name] = slowdown(*series)
    needed = math.ceil(math.log2(max(len(found), 1) / FALSE_ALARMS))
    if few := [key for key, one in found.items() if one.pairs < needed]:
        places = tuple(dict.fromkeys(place for place, _ in few))
        reasons.append(TooFewPairsForAll(needed, len(found), places))
        found = {key: one for key, one in found.items() if key not in few}
    changes = []
    for place, name in told_apart({key: one.p_value for key, one in found.items()}):
        one = found[place, name]
        old, new = (statistics.median(side.figures[name]) for side in sides[place])
        changes.append(TimeChange(place, name, old, new, one.ratio, one.pairs, one.p_value))
    return changes, reasons


def _not_paired(
    place: Place, before: Samples, after: Samples, names: Sequence[str]
) -> Reason | None:
    """Return why the times of a cell cannot be compared in pairs; None if they can."""
    pairs = min(len(before.started), len(after.started))
    if not before.started:
        return NotAlternating(kept=True)
    if not names:
        return NoTimes(place)
    if pairs < FEWEST_PAIRS:
        return TooFewPairs(pairs, FEWEST_PAIRS)
    if not interleaved(before.started, after.started):
        return NotAlternating(kept=False)
    return None


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
    """Return what differs at one rate of false alarms over all: the least p first, until one fails."""
    ordered = sorted(p_values, key=lambda key: p_values[key])
    for number, key in enumerate(ordered):
        if p_values[key] > FALSE_ALARMS / (len(ordered) - number):
            return ordered[:number]
    return ordered
