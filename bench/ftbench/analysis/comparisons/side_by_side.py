"""Side by side: two run directories, cell by cell: their differences, and by how much.

Pure, from records. Cells are the same if all that tells cells apart is the same, but for the seed. If
the two directories as wholes differ in something (another model, another learning rate), that is named as
a difference and cells are paired on the rest. Untrusted figures are left out.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    Contrast,
    MeanEstimate,
    MeanScore,
    Point,
    Run,
    by_seed,
    known,
    log_costs,
    mean_difference,
    mean_scores,
    median_ratio,
    points,
    ratio,
)
from ftbench.analysis.tables.cells_table import (
    ABSENT_SETTING,
    UNUSED_SETTING,
    cells_table,
    headline_memory,
    headline_score,
    varying_axes,
)
from ftbench.plan.grid import axis_order
from ftbench.plan.profile import Profile
from ftbench.plan.scores import ScoreKind
from ftbench.records.environment import Environment
from ftbench.records.record import Record

TIMES = ("step_median_s", "total_s")
NOT_RUN = "not run"
_SEED = "seed"
_RUN = "run."  # how a setting begins that says how cells were run, not what they are


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two run directories."""

    name: str
    records: Sequence[Record]
    profile: Profile
    environments: Mapping[str, Environment]

    @property
    def used(self) -> list[Environment]:
        """Return the environments that its records were measured under."""
        ids = {record.environment_id for record in self.records}
        return [one for name, one in self.environments.items() if name in ids]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The values of each side for one thing; empty if a side has none."""

    what: str
    a: tuple[Any, ...]
    b: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """Two run directories beside each other; ratios are B divided by A, differences B less A.

    `table` has one row per cell of either: the axes, `status_a` and `status_b`, `runs_a` and `runs_b`, and for
    every cost the two values (`total_s_a`, `total_s_b`), `total_s_ratio` with `_low` and `_high`, and
    `total_s_verdict` (more, less, not distinguishable, not known); for the score the same with `_difference`.
    `medians` are over the cells that both have, `gain` is the mean difference of the score over them. `same_cells`
    says whether what is paired is the same work.
    """

    a: Side
    b: Side
    environment: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    axes: tuple[str, ...]
    costs: tuple[str, ...]
    table: pd.DataFrame
    cells: Mapping[Point, Mapping[str, Contrast]]
    medians: Mapping[str, Contrast]
    score: ScoreKind
    gain: Contrast | None

    @property
    def same_cells(self) -> bool:
        """Return whether the paired cells agree in everything but the seed."""
        return all(one.what.startswith(_RUN) for one in self.settings)

    @property
    def compared(self) -> pd.DataFrame:
        """Return the rows of the cells that have runs on both sides."""
        return self.table[(self.table["runs_a"] > 0) & (self.table["runs_b"] > 0)]

    @property
    def apart(self) -> pd.DataFrame:
        """Return the rows of the other cells."""
        return self.table.drop(self.compared.index)


def side_by_side(a: Side, b: Side) -> SideBySide:
    """Return two run directories beside each other."""
    differing = _facet_differences(a, b)
    everything = [*a.records, *b.records]
    dropped = {one.what for one in differing}
    axes = axis_order(name for name in varying_axes(everything) if name not in dropped)
    tables = _aligned(cells_table(a.records, axes), cells_table(b.records, axes), axes)
    costs = (*TIMES, _memory(*tables))
    score = headline_score(pd.concat(tables))
    evidence = [_Evidence.of(table, axes, costs, score) for table in tables]
    cells = _contrasts(evidence[0], evidence[1], costs)
    return SideBySide(
        a=a,
        b=b,
        environment=tuple(_environment_differences(a, b)),
        settings=(*differing, *_run_differences(a, b)),
        axes=tuple(axes),
        costs=costs,
        table=_table(evidence[0], evidence[1], axes, costs, cells),
        cells=cells,
        medians={
            cost: _over([found[cost] for found in cells.values() if cost in found])
            for cost in costs
            if any(cost in found for found in cells.values())
        },
        score=score,
        gain=_gain(evidence[0], evidence[1], list(cells)),
    )


# What differs


def _facet_differences(a: Side, b: Side) -> list[Difference]:
    """Return the settings that have one value throughout A and another throughout B."""
    sides = [[record.cell for record in side.records] for side in (a, b)]
    names = {name for cells in sides for cell in cells for name in cell.facets} - {_SEED}
    found = []
    for name in axis_order(names):
        told = [[cell.value(name) for cell in cells] for cells in sides]
        values = [tuple({repr(value): value for value in side}.values()) for side in told]
        if len(values[0]) == len(values[1]) == 1 and repr(values[0]) != repr(values[1]):
            found.append(Difference(name, _there(values[0]), _there(values[1])))
    return found


def _there(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in values if value is not None)


def _run_differences(a: Side, b: Side) -> list[Difference]:
    """Return the differences in how the two were run."""
    runs = [side.profile.run.model_dump(mode="json") for side in (a, b)]
    return [
        Difference(f"{_RUN}{name}", (runs[0][name],), (runs[1][name],))
        for name in runs[0]
        if runs[0][name] != runs[1][name]
    ]


def _environment_differences(a: Side, b: Side) -> list[Difference]:
    """Return the differences between the environments, packages last."""
    described = [[one.flat() for one in side.used] for side in (a, b)]
    names = {name: None for side in described for one in side for name in one}
    del names["device.uuid"]  # says nothing of a card's speed
    found = []
    for name in sorted(names, key=lambda name: name.startswith("packages.")):
        values = [
            tuple({one[name]: None for one in side if one.get(name) is not None})
            for side in described
        ]
        if set(values[0]) != set(values[1]):
            found.append(Difference(name, values[0], values[1]))
    return found


# Cell by cell


def _aligned(
    a: pd.DataFrame, b: pd.DataFrame, axes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tables whose axes have the same types: texts if either has a default."""
    words = [ABSENT_SETTING, UNUSED_SETTING]
    mixed = [name for name in axes if any(t[name].isin(words).any() for t in (a, b))]
    types = dict.fromkeys(mixed, str)
    return a.astype(types), b.astype(types)


def _memory(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Return the memory figure that both sides have: the headline's, else the resident set."""
    names = {headline_memory(table) for table in (a, b)}
    return names.pop() if len(names) == 1 else "peak_rss_bytes"


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """The figures of one side at every point: its runs, its score over seeds, the logarithms of costs."""

    runs: Mapping[Point, Sequence[Run]]
    statuses: Mapping[Point, str]
    score: ScoreKind
    scores: Mapping[Point, MeanScore]
    costs: Mapping[str, Mapping[Point, MeanEstimate]]

    @classmethod
    def of(
        cls, table: pd.DataFrame, axes: Sequence[str], costs: Sequence[str], score: ScoreKind
    ) -> _Evidence:
        """Return the evidence in a table of cells."""
        runs = points(table, axes)
        statuses: dict[Point, dict[str, None]] = {}
        for row in table.to_dict("records"):
            statuses.setdefault(tuple(row[axis] for axis in axes), {})[row["status"]] = None
        return cls(
            runs=runs,
            statuses={point: ", ".join(sorted(found)) for point, found in statuses.items()},
            score=score,
            scores=mean_scores(runs, score.column),
            costs={cost: log_costs(runs, cost) for cost in costs},
        )


def _contrasts(
    a: _Evidence, b: _Evidence, costs: Sequence[str]
) -> dict[Point, dict[str, Contrast]]:
    """Return the contrasts of every cell that both have, by cost and score."""
    found: dict[Point, dict[str, Contrast]] = {}
    for point in a.runs:
        if point not in b.runs:
            continue
        found[point] = {
            cost: ratio(b.costs[cost][point], a.costs[cost][point])
            for cost in costs
            if point in a.costs[cost] and point in b.costs[cost]
        }
        gain = _gain(a, b, [point])
        if gain is not None:
            found[point][a.score.column] = gain
    return found


def _gain(a: _Evidence, b: _Evidence, cells: Sequence[Point]) -> Contrast | None:
    """Return the mean of B's scores less A's over the cells that both have one of."""
    pairs = [
        (b.scores[point], a.scores[point])
        for point in cells
        if point in a.scores and point in b.scores
    ]
    return mean_difference(pairs)


def _over(ratios: Sequence[Contrast]) -> Contrast:
    """Return the median of the cells' ratios; the ratio itself if there is one cell."""
    return ratios[0] if len(ratios) == 1 else median_ratio([one.value for one in ratios])


def _table(
    a: _Evidence,
    b: _Evidence,
    axes: Sequence[str],
    costs: Sequence[str],
    cells: Mapping[Point, Mapping[str, Contrast]],
) -> pd.DataFrame:
    rows = [
        _row(point, a, b, axes, costs, cells.get(point, {}))
        for point in {**a.statuses, **b.statuses}
    ]
    columns = [*axes, "status_a", "status_b", "runs_a", "runs_b"]
    for name in (*costs, a.score.column):
        columns += [f"{name}_{part}" for part in ("a", "b", *_parts(name, a.score), "verdict")]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(list(axes), kind="stable", ignore_index=True)


def _parts(name: str, score: ScoreKind) -> tuple[str, str, str]:
    word = "difference" if name == score.column else "ratio"
    return word, f"{word}_low", f"{word}_high"


def _row(
    point: Point,
    a: _Evidence,
    b: _Evidence,
    axes: Sequence[str],
    costs: Sequence[str],
    said: Mapping[str, Contrast],
) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(axes, point, strict=True))
    for end, side in (("a", a), ("b", b)):
        runs = side.runs.get(point, ())
        row |= {f"status_{end}": side.statuses.get(point, NOT_RUN), f"runs_{end}": len(runs)}
        row |= {f"{cost}_{end}": _median(known(runs, cost)) for cost in costs}
        scores = list(by_seed(runs, a.score.column).values())
        row[f"{a.score.column}_{end}"] = sum(scores) / len(scores) if scores else None
    for name, one in said.items():
        middle, low, high = _parts(name, a.score)
        row |= {f"{name}_{middle}": one.value, f"{name}_verdict": one.verdict}
        if one.interval is not None:
            row |= {f"{name}_{low}": one.interval.low, f"{name}_{high}": one.interval.high}
    return row


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
