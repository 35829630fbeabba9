"""The inputs of charts: tables and fits, and a way to the samples of one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from ftbench.analysis.fits.laws import Fit, FitGroup, LearningCurve, Refusal
from ftbench.analysis.tables.cells_table import headline_memory, headline_score
from ftbench.plan.scores import ScoreKind
from ftbench.records.record import Record

# Returns the samples of a record's memory, None if there are none.
ReadSamples = Callable[[Record], pd.DataFrame | None]


def no_samples(record: Record) -> pd.DataFrame | None:
    """Return nothing: of a report that is made without its run directory."""
    return None


@dataclasses.dataclass(frozen=True)
class ChartInputs:
    """The cells of a report as a table (`cells_table`), its axes, and the fits.

    The axes are `separating_axes`: runs of two environments stand in no line and in no cell together.
    """

    table: pd.DataFrame
    axes: Sequence[str]
    records: Sequence[Record]
    groups: Sequence[FitGroup] = ()
    curves: Sequence[LearningCurve | Refusal] = ()
    samples: ReadSamples = no_samples

    @cached_property
    def finished(self) -> pd.DataFrame:
        """Return the rows whose status is `ok`."""
        return self.table[self.table["status"] == "ok"]

    @property
    def memory(self) -> str:
        """Return the column of the memory figure that stands for a run."""
        return headline_memory(self.table)

    def varying(self, *without: str) -> list[str]:
        """Return the axes with more than one value, less those named."""
        return [
            axis
            for axis in self.axes
            if axis not in without and self.finished[axis].nunique(dropna=False) > 1
        ]

    @property
    def score(self) -> ScoreKind:
        """Return the score that stands for the runs."""
        return headline_score(self.table)

    @property
    def eval_sizes(self) -> list[int]:
        """Return how many examples scores are over, the least first: it has the largest error."""
        return sorted({record.cell.data.eval_size for record in self.records})

    def fit(self, cost: str, point: Mapping[str, Any]) -> Fit | None:
        """Return the fit of a cost to the group that a point belongs to; None if there is none."""
        for group in self.groups:
            same = (str(point.get(name)) == str(value) for name, value in group.fixed.items())
            if all(same):
                return group.fits.get(cost)
        return None
