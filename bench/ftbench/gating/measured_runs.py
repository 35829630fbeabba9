"""Measured: the runs of a run directory, or of a baseline, by cell.

Only trusted runs are among the samples of a cell; the rest is counted, with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftbench.analysis.tables.cells_table import SCORE_ERROR, cells_table, headline_score
from ftbench.base.errors import BaselineError
from ftbench.base.units import MIB
from ftbench.gating.baseline import Measured, MeasuredCell, SeedScore
from ftbench.gating.baseline_file import read_baseline
from ftbench.gating.places import Place, places_of
from ftbench.gating.reasons import (
    CellsNotRun,
    EnvironmentsUnknown,
    Reason,
    RecordsUnreadable,
    RunsLeftOut,
)
from ftbench.plan.cell import Cell
from ftbench.plan.groups import common_facets
from ftbench.plan.scores import ScoreKind
from ftbench.plan.settings import moving_only
from ftbench.records.environment import Environment
from ftbench.records.figures import READINGS
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory

# Counted by torch's allocators, so near-deterministic.
TORCH_PEAKS = (
    *(one.name for one in READINGS if one.place == "torch"),
    "peak_cpu_tensors_bytes",
)
NVML_PEAK, RSS_PEAK = "peak_process_bytes", "peak_rss_bytes"
# What the readings come in: NVML's pages, and what glibc asks the kernel for.
GRAIN_BYTES = {NVML_PEAK: 2 * MIB, RSS_PEAK: MIB}
# What a cell's time is judged by: of steps the fastest, or the median where records have no fastest, and the
# whole run. Other work on a machine only adds to a step, and the minimum is what it adds least to (Chen and
# Revels 2016, "Robust benchmarking in noisy environments"); what is slow beside the steps shows in the total.
TIMES = (("step_min_s", "step_median_s"), ("total_s",))
_TIMES = tuple(itertools.chain(*TIMES))
# What --across-versions compares across; another device or driver is another thing.
VERSIONS = ("torch", "transformers", "accelerate", "cuda")
# Runs of one cell differ in these alone; a learning rate moves accuracy.
_FREE = frozenset({"seed"}) | moving_only()


@dataclasses.dataclass(frozen=True)
class Samples:
    """The trusted runs of one cell, in the order in which they began.

    `figures` has one value per run, `started` when each began; `scores` has one per seed: of the score
    of this name.
    """

    figures: Mapping[str, tuple[float, ...]]
    started: tuple[str, ...]
    score: str
    scores: Mapping[str, SeedScore]


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a run directory.

    `machine` has the device and the versions that they were measured with, `workload` what all cells have in
    common. `oom` are the cells that ran out of memory; `doubts` say which runs are not among the samples.
    """

    samples: Mapping[Place, Samples]
    machine: Mapping[str, str]
    workload: Mapping[str, Any]
    oom: tuple[Place, ...] = ()
    doubts: tuple[Reason, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether there are runs, and all of them ended well with figures to be believed."""
        return bool(self.samples) and not self.doubts and not self.oom

    def only(self, grid: Iterable[Cell], chosen: Iterable[Cell]) -> Runs:
        """Return the runs of the chosen cells of a grid."""
        known = places_of(grid, _run_view)
        places = {known[cell.cell_id] for cell in chosen}
        samples = {place: own for place, own in self.samples.items() if place in places}
        return dataclasses.replace(
            self, samples=samples, oom=tuple(place for place in self.oom if place in places)
        )


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

    Cells have the places that they have in the grid, however few of it were run. With `chosen` only their
    runs count. Cells that are wanted and have no record are among the doubts.
    """
    cells = list({cell.cell_id: cell for cell in (*grid, *(r.cell for r in records))}.values())
    places = places_of(cells, _run_view)
    if chosen is not None:
        kept = {cell.cell_id for cell in chosen}
        records = [record for record in records if record.cell_id in kept]
    began = {(r.cell_id, r.replicate, r.repeat): r.started_at for r in records}
    table = cells_table(list(records))
    rows: dict[Place, list[dict[Any, Any]]] = {}
    for row in table[table["status"] == "ok"].to_dict("records"):
        started = began[row["cell_id"], row["replicate"], row["repeat"]]
        rows.setdefault(places[row["cell_id"]], []).append({**row, "started": started})
    doubts: list[Reason] = [
        RunsLeftOut(count, str(status))
        for status, count in table["status"].value_counts().to_dict().items()
        if status not in ("ok", "oom")
    ]
    wanted_ids = {cell.cell_id for cell in wanted}
    if missing := wanted_ids - {record.cell_id for record in records}:
        doubts.append(CellsNotRun(len(missing)))
    if damaged:
        doubts.append(RecordsUnreadable(damaged))
    used = {record.environment_id for record in records if record.status in ("ok", "oom")}
    if unknown := sorted(used - environments.keys()):
        doubts.append(EnvironmentsUnknown(tuple(unknown)))
    return Runs(
        samples={place: _samples(own, headline_score(table)) for place, own in rows.items()},
        machine=machine_of(one for name, one in environments.items() if name in used),
        workload=common_facets(cells, _run_view),
        oom=tuple(
            dict.fromkeys(places[record.cell_id] for record in records if record.status == "oom")
        ),
        doubts=tuple(doubts),
    )


def _run_view(facets: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facets.items() if name not in _FREE}


def _samples(rows: list[dict[Any, Any]], kind: ScoreKind) -> Samples:
    rows = sorted(rows, key=lambda row: str(row["started"]))
    figures = {}
    for name in (*TORCH_PEAKS, *GRAIN_BYTES, *_TIMES):
        values = [float(row[name]) for row in rows if pd.notna(row[name])]
        whole = name not in _TIMES or len(values) == len(rows)  # times are told by their place
        if values and whole:
            figures[name] = tuple(values)
    scores: dict[str, SeedScore] = {}
    for row in rows:
        if pd.notna(row[kind.column]):
            error = float(row[SCORE_ERROR]) if pd.notna(row[SCORE_ERROR]) else None
            score = SeedScore(value=float(row[kind.column]), standard_error=error)
            scores.setdefault(str(row["seed"]), score)
    return Samples(figures, tuple(str(row["started"]) for row in rows), kind.name, scores)


def machine_of(environments: Iterable[Environment]) -> dict[str, str]:
    """Return what measured figures depend on besides the code: the device, its driver, the libraries."""
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
    cells = (
        MeasuredCell(
            settings=dict(place.settings),
            cell=place.cell,
            figures=dict(one.figures),
            score=one.score,
            scores=dict(one.scores),
        )
        for place, one in runs.samples.items()
    )
    return Measured(machine=dict(runs.machine), workload=dict(runs.workload), cells=tuple(cells))


def kept_runs(measured: Measured) -> Runs:
    """Return the runs that a baseline keeps; it does not keep when they began."""
    samples = {
        Place(one.settings, one.cell): Samples(one.figures, (), one.score, one.scores)
        for one in measured.cells
    }
    return Runs(samples, measured.machine, measured.workload)


def read_runs(
    path: Path,
    grid: Iterable[Cell],
    chosen: Iterable[Cell] | None = None,
    wanted: Iterable[Cell] = (),
) -> Runs:
    """Return the runs of a run directory, as `runs_of` does; raises RunDirectoryError."""
    directory = RunDirectory.open(path)
    records, damaged = directory.survey()
    return runs_of(
        records,
        directory.environments(),
        len(damaged),
        grid=grid,
        chosen=chosen,
        wanted=wanted,
    )


def read_kept_runs(file: Path, grid: Iterable[Cell], chosen: Iterable[Cell] | None = None) -> Runs:
    """Return the runs that the baseline in a file keeps, of the chosen cells of a grid or of all.

    Raises BaselineError if it keeps none.
    """
    measured = read_baseline(file).measured
    if measured is None:
        raise BaselineError(
            "the baseline has no measured runs",
            where=str(file),
            hint="`ftbench baseline update PROFILE --runs RUN_DIR` keeps some",
        )
    runs = kept_runs(measured)
    return runs if chosen is None else runs.only(grid, chosen)
