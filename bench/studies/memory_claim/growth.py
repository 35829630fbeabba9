"""Growth: how exact peaks grow with length and with parameters. Pure.

A predicted peak of tensors is exact, so nothing has to be fitted through noise. If the peak stays at one
moment of the step, it is a polynomial in the length: three lengths give its coefficients as fractions,
and every further length has to agree to the byte.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from ftbench.plan.cell import Cell
from ftbench.records.prediction import CardPrediction, CellPrediction

# A parameter in float32 with AdamW: itself, its gradient and two moments, four bytes each.
BYTES_PER_PARAMETER = 16
FLOAT32_BYTES = 4
STATE = ("parameters", "gradients", "optimizer state")
# Three lengths determine a law; at least one further length has to confirm it.
_MADE_FROM = 3


@dataclasses.dataclass(frozen=True)
class SeriesSetting:
    """The settings of a series of lengths. `padded` batches contain padding, and therefore have a mask."""

    model: str
    attention: str
    padded: bool
    checkpointing: bool
    batch: int


@dataclasses.dataclass(frozen=True)
class Peak:
    """A predicted peak: its bytes, those of model state, and the moment at which it is reached.

    Bytes by role are those at that moment, at which some gradients may not exist yet.
    """

    length: int
    total_bytes: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    moment: str
    cards: tuple[CardPrediction, ...] = ()

    @property
    def state_bytes(self) -> int:
        """Return the bytes of parameters, gradients and optimizer state."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def other_bytes(self) -> int:
        """Return the bytes of all the rest: activations, temporaries and inputs."""
        return self.total_bytes - self.state_bytes

    @property
    def state_share(self) -> float:
        """Return the share of model state."""
        return self.state_bytes / self.total_bytes


Peaks = tuple[Peak, ...]
SeriesOf = Mapping[SeriesSetting, Peaks]


def peak_of(cell: Cell, prediction: CellPrediction) -> Peak:
    """Return the peak of a prediction that was made with `explain`."""
    composition = prediction.composition
    assert composition is not None
    roles = {share.name: share.nbytes for share in composition.roles}
    parameters, gradients, optimizer = (roles.get(name, 0) for name in STATE)
    moment = composition.moment
    return Peak(
        length=cell.max_length,
        total_bytes=prediction.tensors.value_bytes,
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        moment=f"{moment.phase}: {moment.operator} of {moment.module or 'the loop'}",
        cards=prediction.cards,
    )


def setting_of(cell: Cell, *, padded: bool) -> SeriesSetting:
    """Return the settings of the series that a cell belongs to; `model` is the architecture's name."""
    return SeriesSetting(
        model=cell.model.source.location,
        attention=cell.attn_implementation,
        padded=padded,
        checkpointing=bool(cell.settings.get("gradient_checkpointing")),
        batch=cell.per_device_train_batch_size,
    )


def series_of(found: Iterable[tuple[SeriesSetting, Peak]]) -> SeriesOf:
    """Return the peaks of each setting, by rising length."""
    series: dict[SeriesSetting, list[Peak]] = {}
    for setting, peak in found:
        series.setdefault(setting, []).append(peak)
    return {
        setting: tuple(sorted(peaks, key=lambda peak: peak.length))
        for setting, peaks in series.items()
    }


@dataclasses.dataclass(frozen=True)
class LengthDoubling:
    """The local exponents d log bytes / d log length between a length and its double.

    `other` is the exponent without model state; None if the peak moves to another moment in between, so
    that the two cannot be compared.
    """

    start: int
    end: int
    total: float
    other: float | None


def doublings(peaks: Sequence[Peak]) -> tuple[LengthDoubling, ...]:
    """Return the exponents between each length and its double, if both are in the series."""
    by_length = {peak.length: peak for peak in peaks}
    found = []
    for length, peak in sorted(by_length.items()):
        double = by_length.get(2 * length)
        if double is not None:
            other = None
            if peak.moment == double.moment:
                other = local_exponent(peak.other_bytes, double.other_bytes, 2)
            total = local_exponent(peak.total_bytes, double.total_bytes, 2)
            found.append(LengthDoubling(length, 2 * length, total, other))
    return tuple(found)


def local_exponent(before: float, after: float, ratio: float) -> float:
    """Return the power of `ratio` by which a quantity grew: 1 for linear, 2 for quadratic."""
    return math.log(after / before) / math.log(ratio)


@dataclasses.dataclass(frozen=True)
class LengthLaw:
    """A peak in bytes as constant + linear x length + square x length², and the lengths for which it holds.

    `checked` is the number of lengths, beyond the three that determine it, that agree to the byte.
    """

    start: int
    end: int
    constant: Fraction
    linear: Fraction
    square: Fraction
    checked: int

    @property
    def even(self) -> float | None:
        """Return the length at which the quadratic and the linear part are equal; None if there is none."""
        return float(self.linear / self.square) if self.square > 0 else None


def law_at_end(peaks: Sequence[Peak]) -> LengthLaw | None:
    """Return the law of the longest lengths, down to the shortest for which it holds to the byte.

    None if no fourth length agrees, since any three points lie on a parabola.
    """
    ordered = sorted(peaks, key=lambda peak: peak.length)
    if len(ordered) <= _MADE_FROM:
        return None
    made_from = ordered[-_MADE_FROM:]
    constant, linear, square = _parabola([(p.length, p.total_bytes) for p in made_from])
    start, checked = made_from[0].length, 0
    for peak in reversed(ordered[:-_MADE_FROM]):
        if constant + linear * peak.length + square * peak.length**2 != peak.total_bytes:
            break
        start, checked = peak.length, checked + 1
    if not checked:
        return None
    return LengthLaw(start, ordered[-1].length, constant, linear, square, checked)


def _parabola(points: Sequence[tuple[int, int]]) -> tuple[Fraction, Fraction, Fraction]:
    """Return the coefficients of the parabola through three points, exactly (Newton's differences)."""
    (x0, y0), (x1, y1), (x2, y2) = points
    first = Fraction(y1 - y0, x1 - x0)
    square = (Fraction(y2 - y1, x2 - x1) - first) / (x2 - x0)
    linear = first - square * (x0 + x1)
    return y0 - linear * x0 - square * x0**2, linear, square


@dataclasses.dataclass(frozen=True)
class Size:
    """A model of a family: its shape, its parameters, and its peaks by (batch, length)."""

    name: str
    layers: int
    width: int
    parameters: int
    peaks: Mapping[tuple[int, int], Peak]

    @property
    def floor(self) -> Peak:
        """Return the peak of the smallest step, which is almost only model state."""
        return self.peaks[min(self.peaks, key=lambda shape: shape[0] * shape[1])]


def parameters_of(floor: Peak) -> int:
    """Return the number of parameters of a model in float32, from a peak at which all gradients exist."""
    return floor.gradients_bytes // FLOAT32_BYTES


def power(points: Sequence[tuple[float, float]]) -> float:
    """Return the power by which y grows with x, by least squares of the logarithms."""
    x, y = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


@dataclasses.dataclass(frozen=True)
class Option:
    """Another optimizer or precision: a peak of almost only model state, and one with many activations."""

    name: str
    floor: Peak
    peak: Peak


@dataclasses.dataclass(frozen=True)
class CpuPeak:
    """The predicted peak of tensors on a CPU, for a cell that can be measured there."""

    setting: SeriesSetting
    length: int
    cell_id: str
    predicted_bytes: int


@dataclasses.dataclass(frozen=True)
class ClaimData:
    """All predictions that test the claim.

    `family` has the named sizes of one architecture, `depths` and `widths` have sizes that differ only in
    one of the two; each in ascending number of parameters.
    """

    series: SeriesOf
    family: tuple[Size, ...]
    depths: tuple[Size, ...]
    widths: tuple[Size, ...]
    options: tuple[Option, ...]
    beside: tuple[CpuPeak, ...]
    versions: tuple[tuple[str, str], ...]
