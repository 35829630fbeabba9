"""Growth: how exact peaks grow with length and with parameters. Pure.

A predicted peak of tensors is exact, so there is no noise to fit through: where a peak stays at one
moment of the step it is a polynomial in the length, three lengths give its coefficients as fractions,
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
BYTES_A_PARAMETER = 16
FLOAT32_BYTES = 4
STATE = ("parameters", "gradients", "optimizer state")
# Three lengths make a law; each further one can contradict it, and one has to be able to.
_MADE_FROM = 3


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a series of lengths has in common. `padded`: batches have padding in them, and so a mask."""

    model: str
    attention: str
    padded: bool
    checkpointing: bool
    batch: int


@dataclasses.dataclass(frozen=True)
class Peak:
    """A predicted peak: its bytes, what of them is model state, and the moment that it is reached at.

    Bytes by role are those that are there at that moment: not all gradients may be.
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
SeriesOf = Mapping[Setting, Peaks]


def peak_of(cell: Cell, prediction: CellPrediction) -> Peak:
    """Return a prediction that was explained as a peak."""
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


def setting_of(cell: Cell, *, padded: bool) -> Setting:
    """Return the series that a cell belongs to; its model by the architecture's name."""
    return Setting(
        model=cell.model.source.location,
        attention=cell.attn_implementation,
        padded=padded,
        checkpointing=bool(cell.settings.get("gradient_checkpointing")),
        batch=cell.per_device_train_batch_size,
    )


def series_of(found: Iterable[tuple[Setting, Peak]]) -> SeriesOf:
    """Return the peaks of each setting, by rising length."""
    series: dict[Setting, list[Peak]] = {}
    for setting, peak in found:
        series.setdefault(setting, []).append(peak)
    return {
        setting: tuple(sorted(peaks, key=lambda peak: peak.length))
        for setting, peaks in series.items()
    }


@dataclasses.dataclass(frozen=True)
class LengthDoubling:
    """The local exponents d log bytes / d log length between a length and its double.

    `other` is of what is no model state; None where the peak moves to another moment in between, so
    that the two are not of one kind.
    """

    start: int
    end: int
    total: float
    other: float | None


def doublings(peaks: Sequence[Peak]) -> tuple[LengthDoubling, ...]:
    """Return the exponents between those lengths whose double is there, too."""
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
    """Return the power of `ratio` that a quantity grew by: 1 for linear, 2 for quadratic."""
    return math.log(after / before) / math.log(ratio)


@dataclasses.dataclass(frozen=True)
class LengthLaw:
    """A peak in bytes as constant + linear x length + square x length², and the lengths it holds for.

    `checked` lengths, besides the three that it was made from, agree with it to the byte.
    """

    start: int
    end: int
    constant: Fraction
    linear: Fraction
    square: Fraction
    checked: int

    @property
    def even(self) -> float | None:
        """Return the length where the part in length² is as large as the linear one; None without one."""
        return float(self.linear / self.square) if self.square > 0 else None


def law_at_end(peaks: Sequence[Peak]) -> LengthLaw | None:
    """Return the law of the longest lengths, as far down as it holds to the byte.

    None where no fourth length agrees: three points are on a parabola whatever they are.
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
        """Return the peak of the smallest step: model state, and little else."""
        return self.peaks[min(self.peaks, key=lambda shape: shape[0] * shape[1])]


def parameters_of(floor: Peak) -> int:
    """Return the parameters of a model in float32, from a peak at which all gradients are there."""
    return floor.gradients_bytes // FLOAT32_BYTES


def power(points: Sequence[tuple[float, float]]) -> float:
    """Return the power that y grows by with x over several points: least squares of the logarithms."""
    x, y = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


@dataclasses.dataclass(frozen=True)
class Option:
    """Another optimizer or precision: a peak of model state and little else, and one with activations."""

    name: str
    floor: Peak
    peak: Peak


@dataclasses.dataclass(frozen=True)
class Beside:
    """The predicted peak of tensors on a CPU of a cell that can be measured there."""

    setting: Setting
    length: int
    cell_id: str
    predicted_bytes: int


@dataclasses.dataclass(frozen=True)
class ClaimData:
    """All that was predicted to test the claim.

    `family` has the named sizes of one architecture, `depths` and `widths` sizes that differ in one of
    the two; each by rising number of parameters.
    """

    series: SeriesOf
    family: tuple[Size, ...]
    depths: tuple[Size, ...]
    widths: tuple[Size, ...]
    options: tuple[Option, ...]
    beside: tuple[Beside, ...]
    versions: tuple[tuple[str, str], ...]
