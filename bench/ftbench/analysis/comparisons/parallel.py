"""Parallel efficiency: how much of each processor's or card's speed is left when several share the work.

Weak scaling fixes the batch of a process, so the whole batch grows with the processes. Strong scaling fixes the
whole batch, which the processes share.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

from ftbench.plan.cell import Cell
from ftbench.records.invariants import untrusted_figures
from ftbench.records.measurement import Measurement
from ftbench.records.record import Record

Kind = Literal["weak", "strong"]
_CONFIDENCE = 0.95
_BATCH = "per_device_train_batch_size"
# What may differ between the processes of one cell and those of another that it is compared with.
_OF_PROCESSES = ("num_processes", "strategy", "seed")


@dataclasses.dataclass(frozen=True)
class ScalingPoint:
    """The steps of cells with one number of processes.

    `units` are the cards, or the threads of all processes on a CPU. `step_s` is the median step of the slowest
    rank, `examples_per_s` the examples of a full step divided by it; both are geometric means over seeds. `speedup`
    and `efficiency` are to the fewest processes of the series: the ratio of examples per second, and that per unit.
    With two seeds or more, `low` and `high` are the ends of the efficiency's 95 % interval over seeds, else None.
    """

    processes: int
    units: int
    batch: int
    step_s: float
    examples_per_s: float
    speedup: float
    efficiency: float
    low: float | None
    high: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class ScalingSeries:
    """Cells that differ only in their processes, and, for strong scaling, in each one's batch.

    `batch` is that of a process (weak) or of all (strong), in examples per optimizer step; `fixed` has the cells'
    other facets. `points` begin with the fewest processes, at an efficiency of 1.
    """

    kind: Kind
    strategy: str
    batch: int
    fixed: Mapping[str, Any]
    points: tuple[ScalingPoint, ...]


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run's steps: examples per second of a full step, and what they were computed on."""

    cell: Cell
    environment_id: str
    seed: int
    step_s: float
    units: int

    @property
    def examples_per_s(self) -> float:
        return self.cell.examples_per_step * self.cell.num_processes / self.step_s


def scaling_series(records: Iterable[Record]) -> list[ScalingSeries]:
    """Return the weak and the strong scaling of all cells that have relatives with other numbers of processes.

    Runs whose step time is absent or untrusted are left out, and only runs of one environment are compared.
    """
    runs = [run for record in records if (run := _run(record)) is not None]
    strategies = sorted({run.cell.strategy for run in runs if run.cell.num_processes > 1})
    kinds: tuple[Kind, ...] = ("weak", "strong")
    found = []
    for kind in kinds:
        for strategy in strategies:
            families: dict[str, list[_Run]] = {}
            for run in runs:
                if run.cell.num_processes == 1 or run.cell.strategy == strategy:
                    families.setdefault(_family(kind, run), []).append(run)
            found += [
                _series(kind, strategy, family) for family in families.values() if _several(family)
            ]
    return found


def _several(family: Sequence[_Run]) -> bool:
    return len({run.cell.num_processes for run in family}) > 1


def _run(record: Record) -> _Run | None:
    measured = record.measurement
    if measured is None or measured.steps is None or record.repeat:
        return None
    if "steps.median_s" in untrusted_figures(record):
        return None
    units = _units(measured)
    if units is None:
        return None
    return _Run(record.cell, record.environment_id, record.seed, measured.steps.median_s, units)


def _units(measured: Measurement) -> int | None:
    """Return the number of cards, or of threads on a CPU; None if threads are not known."""
    if measured.device.kind == "cuda":
        return len(measured.ranks)
    threads = [rank.device.threads for rank in measured.ranks]
    return None if None in threads else sum(filter(None, threads))


def _family(kind: Kind, run: _Run) -> str:
    """Return a key that is equal for runs that are compared."""
    batch = _batch(kind, run.cell)
    return json.dumps(
        [batch, run.environment_id, _fixed(kind, run.cell)], sort_keys=True, default=str
    )


def _batch(kind: Kind, cell: Cell) -> int:
    return cell.examples_per_step * (cell.num_processes if kind == "strong" else 1)


def _fixed(kind: Kind, cell: Cell) -> dict[str, Any]:
    """Return a cell's facets that its relatives have as well."""
    left_out = (*_OF_PROCESSES, *([_BATCH] if kind == "strong" else []))
    return {
        name: value
        for name, value in cell.facets.items()
        if name not in left_out and not name.startswith("parallel.")
    }


def _series(kind: Kind, strategy: str, family: Sequence[_Run]) -> ScalingSeries:
    by_processes: dict[int, list[_Run]] = {}
    for run in family:
        by_processes.setdefault(run.cell.num_processes, []).append(run)
    fewest = by_processes[min(by_processes)]
    return ScalingSeries(
        kind=kind,
        strategy=strategy,
        batch=_batch(kind, family[0].cell),
        fixed=_fixed(kind, family[0].cell),
        points=tuple(_point(by_processes[number], fewest) for number in sorted(by_processes)),
    )


def _point(runs: Sequence[_Run], fewest: Sequence[_Run]) -> ScalingPoint:
    first = runs[0]
    logs = _by_seed(runs, fewest)
    efficiency = math.exp(float(np.mean(logs))) if logs else _rate(runs) / _rate(fewest)
    low, high = (None, None) if runs is fewest else _interval(logs)
    return ScalingPoint(
        processes=first.cell.num_processes,
        units=first.units,
        batch=first.cell.per_device_train_batch_size,
        step_s=_mean([run.step_s for run in runs]),
        examples_per_s=_mean([run.examples_per_s for run in runs]),
        speedup=efficiency * first.units / fewest[0].units,
        efficiency=efficiency,
        low=low,
        high=high,
        seeds=len({run.seed for run in runs}),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(float(np.mean(np.log(values))))


def _rate(runs: Sequence[_Run]) -> float:
    return _mean([run.examples_per_s / run.units for run in runs])


def _by_seed(runs: Sequence[_Run], fewest: Sequence[_Run]) -> list[float]:
    """Return the logarithm of the efficiency of each run whose seed ran on the fewest processes, too."""
    one = {run.seed: run.examples_per_s / run.units for run in fewest}
    return [
        math.log(run.examples_per_s / run.units / one[run.seed]) for run in runs if run.seed in one
    ]


def _interval(logs: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the ends of the efficiency's interval: Student's t of logarithms, one per seed.

    (None, None) with fewer than two.
    """
    if len(logs) < 2:
        return None, None
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(logs) - 1)) * float(stats.sem(logs))
    middle = float(np.mean(logs))
    return math.exp(middle - half), math.exp(middle + half)
