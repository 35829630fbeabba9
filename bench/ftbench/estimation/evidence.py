"""Evidence: the runs of a workload on one device that bear on a cell that was not run, and their fits."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ftbench.analysis.fits.laws import Fit, FitGroup, Interval, LearningCurve, Refusal
from ftbench.analysis.fits.learning import learning_curves
from ftbench.analysis.fits.scaling import fit_scaling, scaling_table, with_full_steps
from ftbench.analysis.tables.cells_table import shown_value, varying_axes
from ftbench.estimation.reasons import (
    Absence,
    NoSimilarRun,
    NotMeasured,
    NoTrustedRun,
    Outside,
    SettingDifference,
)
from ftbench.plan.cell import Cell
from ftbench.plan.groups import SOURCE_NAMES
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.settings import COSTLESS, FITTED, NON_TRAINER_AXES, SETTINGS, moving, with_role
from ftbench.records.environment import Device, Environment
from ftbench.records.figures import energy_j
from ftbench.records.record import Record

# Settings in which runs may differ and still bear on each other: fits are along the axes, a
# seed repeats, and epochs are counted.
_FREE = FITTED | COSTLESS
# A learning curve is along training examples; one of another batch size is better than none, and says so.
_FREE_OF_ACCURACY = (
    (frozenset(SETTINGS) - moving("accuracy"))
    | with_role("replicate")
    | {"train_size", "per_device_train_batch_size"}
)
# What names a run in a table, of one directory or of several.
_IDENTITY = ("cell_id", "replicate", "repeat", "environment_id")


# Curves and refusals of runs like a cell; or why there are no such runs.
Curves = tuple[LearningCurve | Refusal, ...] | NoSimilarRun | NoTrustedRun


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The runs on one device that bear on a cell, their fits, and how far the cell lies outside them.

    `records` are those that the fits were made from. `absent` is the reason if there are no fits at all; a
    single cost may be refused as well.
    """

    device: Device
    records: tuple[Record, ...]
    group: FitGroup | None
    outside: tuple[Outside, ...] = ()
    absent: NoSimilarRun | NoTrustedRun | None = None

    def fit(self, cost: str) -> Fit | Absence:
        """Return the fit of a cost, or why there is none."""
        if self.group is None:
            assert self.absent is not None
            return self.absent
        if cost in self.group.fits:
            return self.group.fits[cost]
        refused = (one.reason for one in self.group.refused if one.cost == cost)
        return next(refused, NotMeasured())

    def power(self) -> Interval | None:
        """Return the watts that the device took over whole runs: their median and range; None if unknown."""
        watts = sorted(
            joules / record.measurement.total_s
            for record in self.records
            if record.measurement and (joules := energy_j(record.measurement)) is not None
        )
        return Interval(statistics.median(watts), watts[0], watts[-1]) if watts else None


def workload_differences(cell: Cell, records: Sequence[Record]) -> list[SettingDifference]:
    """Return the differences of a cell's workload from that of the records; empty if one is the same."""
    found: list[SettingDifference] = []
    for record in records:
        found = _differences(_workload(record.cell), _workload(cell))
        if not found:
            return []
    return found


def evidence_for(
    cell: Cell, records: Sequence[Record], environments: Mapping[str, Environment]
) -> list[Evidence]:
    """Return the evidence of records for a cell, by the device they were run on."""
    by_device: dict[Device, list[Record]] = {}
    for record in records:
        environment = environments.get(record.environment_id)
        if environment is not None:
            device = environment.device.model_copy(update={"uuid": None})  # two of a kind are alike
            by_device.setdefault(device, []).append(record)
    return [_on_device(cell, device, its) for device, its in by_device.items()]


def _on_device(cell: Cell, device: Device, records: Sequence[Record]) -> Evidence:
    related, nearest = _related(cell, records, _FREE)
    if not related:
        return Evidence(device, (), None, absent=NoSimilarRun(nearest))
    epochs = cell.settings.get("num_train_epochs")
    same = [r for r in related if r.cell.settings.get("num_train_epochs") == epochs]
    chosen = same or related
    table = with_full_steps(scaling_table(chosen))
    groups = fit_scaling(table, varying_axes(chosen))
    if not groups:
        return Evidence(device, tuple(chosen), None, absent=NoTrustedRun())
    # Several if environments or epochs differ: the one with the most runs.
    group = max(groups, key=lambda one: max((f.runs for f in one.fits.values()), default=0))
    for name, value in group.fixed.items():
        table = table[table[name] == value]
    names = set(table[list(_IDENTITY)].itertuples(index=False, name=None))
    fitted = [r for r in chosen if tuple(getattr(r, name) for name in _IDENTITY) in names]
    return Evidence(device, tuple(fitted), group, _outside(cell, fitted))


def curves_for(cell: Cell, records: Sequence[Record]) -> Curves:
    """Return the learning curves of runs that differ from a cell in training examples, seed and batch only.

    On whatever device: accuracy is the same on all, but for rounding.
    """
    related, nearest = _related(cell, records, _FREE_OF_ACCURACY)
    if not related:
        return NoSimilarRun(nearest)
    curves = learning_curves(scaling_table(related), varying_axes(related))
    return curves or NoTrustedRun()


def _related(
    cell: Cell, records: Sequence[Record], free: Collection[str]
) -> tuple[list[Record], tuple[SettingDifference, ...]]:
    """Return the records that a cell differs from in free names only; and the differences of the nearest."""
    ours = _but(cell, free)
    differing = [(_differences(_but(record.cell, free), ours), record) for record in records]
    found = [record for differences, record in differing if not differences]
    nearest = min((differences for differences, _ in differing), key=len, default=[])
    return found, tuple(nearest)


def fixed_differences(fixed: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Return the settings in which the cells of a group differ from a cell, with the group's values."""
    return {
        name: value for name, value in fixed.items() if str(shown_value(cell, name)) != str(value)
    }


def _outside(cell: Cell, records: Sequence[Record]) -> tuple[Outside, ...]:
    found = []
    for axis in (*REQUIRED_AXES, "num_train_epochs"):
        values = [float(r.cell.facets[axis]) for r in records]
        target = float(cell.facets[axis])
        if values and not min(values) <= target <= max(values):
            found.append(Outside(axis, target, min(values), max(values)))
    return tuple(found)


def _workload(cell: Cell) -> dict[str, Any]:
    """Return the settings that make a cell's model and data."""
    settings = {*cell.settings, *_own(cell), *SOURCE_NAMES}
    return {name: value for name, value in cell.facets.items() if name not in settings}


def _but(cell: Cell, free: Collection[str]) -> dict[str, Any]:
    """Return all settings that tell cells apart, except some."""
    left_out = {*free, *SOURCE_NAMES}
    return {name: value for name, value in cell.facets.items() if name not in left_out}


def _own(cell: Cell) -> set[str]:
    return {*NON_TRAINER_AXES, *(name for name in cell.facets if name.startswith("lora."))}


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[SettingDifference]:
    names = sorted(theirs.keys() | ours.keys())
    return [
        SettingDifference(name, theirs.get(name), ours.get(name))
        for name in names
        if theirs.get(name) != ours.get(name)
    ]
