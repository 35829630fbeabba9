"""Regression: laws that are the largest of a few affine pieces, fitted to few cells, with intervals.

A law's terms are products of the length S and the batch B. All is relative: residuals are shares of the
cost (weights 1 / cost^2), since a step of 10 s is not measured to the millisecond that one of 10 ms is.

Where the methods are from: coefficients that physics keeps from being negative by non-negative least
squares (Lawson and Hanson 1974), solved by going through the active sets, which are few here; pieces by
alternatives of a split of the ordered cells (Hudson 1966, *Fitting segmented curves*); the choice between
laws by leave-one-out error (Stone 1974); intervals by Student's t with the variance of the residuals,
in which misfit is included, times one plus the leverage (any text on weighted least squares).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from ftbench.analysis.fits.laws import CONFIDENCE, Interval
from ftbench.analysis.fits.reasons import CellsTooAlike, Reason, TooFewCells

Numbers = NDArray[np.float64]

TERMS: Mapping[str, Callable[[Numbers, Numbers], Numbers]] = {
    "1": lambda length, batch: np.ones_like(length * batch),
    "S": lambda length, batch: length + 0 * batch,
    "S^2": lambda length, batch: length**2 + 0 * batch,
    "B": lambda length, batch: batch + 0 * length,
    "B*S": lambda length, batch: batch * length,
    "B*S^2": lambda length, batch: batch * length**2,
}
_SUBSCRIPTS = {"1": "0", "B*S": "1", "B*S^2": "2", "B": "B", "S": "S", "S^2": "SS"}

# A law with more terms is taken only if it brings the leave-one-out error below this share of the
# simpler one's: errors of so few cells differ by a tenth by chance alone.
SIMPLER_UNLESS = 0.9
# Cells beyond the number of constants: with one, the residual's variance has a single degree of freedom
# and its t is 12.7.
SPARE_CELLS = 2
# Splits of two pieces that are tried at first, and cells left out one at a time to choose a law: of a
# grid of a hundred cells all of them would be a million fits.
MOST_TRIED = 32
# Leave-one-out errors below this share are rounding.
ROUNDING = 1e-9
# Columns of unit length whose normal matrix has a smaller determinant are the same column twice.
_SINGULAR = 1e-11


class TooFewCellsError(ValueError):
    """A law needs more cells, or other ones; `reason` has the values."""

    def __init__(self, reason: Reason) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def cells_of(axes: Sequence[Numbers]) -> tuple[Numbers, NDArray[np.intp]]:
    """Return the cells of runs, one row per cell with its axes' values, and the number of each run's cell."""
    cells, cell = np.unique(np.stack(axes, axis=1), axis=0, return_inverse=True)
    return cells, cell.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Law:
    """A formula: the largest of its pieces, each a sum of terms, the piece of the small cells first.

    `letter` names the constants of the last piece; the constants of `free` terms there may be negative.
    """

    letter: str
    pieces: tuple[tuple[str, ...], ...]
    free: frozenset[str] = frozenset()

    @property
    def constants(self) -> int:
        """Return how many numbers a fit chooses, the place of each knee among them."""
        return sum(map(len, self.pieces)) + len(self.pieces) - 1

    def names(self, piece: int) -> tuple[str, ...]:
        """Return the names of a piece's constants: t0, t1, ...; `floor` if it is one number."""
        if piece == len(self.pieces) - 1:
            letter = self.letter
        elif self.pieces[piece] == ("1",):
            return ("floor",)
        else:
            letter = "small_" + self.letter
        return tuple(letter + _SUBSCRIPTS[term] for term in self.pieces[piece])

    def __str__(self) -> str:
        """Return the formula: `max(floor, t0 + t1*B*S)`."""
        sums = [
            " + ".join(
                name if term == "1" else f"{name}*{term}"
                for name, term in zip(self.names(number), piece, strict=True)
            )
            for number, piece in enumerate(self.pieces)
        ]
        return sums[0] if len(sums) == 1 else f"max({', '.join(sums)})"


@dataclasses.dataclass(frozen=True)
class CellMeans:
    """Cells with a cost each: the mean over `runs` runs; all arrays are of one length.

    `spread` is the relative standard deviation of one run about its cell's mean, pooled over the
    cells, and `spare` the runs beyond the first of each that it is known from (0: not known).
    """

    length: Numbers
    batch: Numbers
    cost: Numbers
    runs: Numbers
    spread: float = 0.0
    spare: int = 0

    @classmethod
    def of_runs(cls, length: Numbers, batch: Numbers, cost: Numbers) -> CellMeans:
        """Return the cells of runs: those of one length and batch are one, whatever else they differ in."""
        points, cell = cells_of([length, batch])
        runs = np.bincount(cell).astype(float)
        mean = np.bincount(cell, weights=cost) / runs
        spare = len(cost) - len(runs)
        spread = float(np.sqrt(((cost / mean[cell] - 1) ** 2).sum() / spare)) if spare else 0.0
        return cls(points[:, 0], points[:, 1], mean, runs, spread, spare)

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.cost)


@dataclasses.dataclass(frozen=True)
class Model:
    """A fitted law. `deviation` is the standard deviation of a cell's residual, as a share of its cost."""

    law: Law
    coefficients: tuple[Numbers, ...]
    covariances: tuple[Numbers, ...]  # of each piece, to be multiplied by deviation ** 2
    deviation: float
    freedom: int
    run_deviation: float  # of one run about its cell's mean, beyond what `deviation` has of it

    def cost(self, length: Numbers, batch: Numbers) -> Numbers:
        """Return the cost at points: the largest of the pieces."""
        return np.asarray(np.max(self._pieces(length, batch), axis=0))

    def _pieces(self, length: Numbers, batch: Numbers) -> Numbers:
        return np.stack(
            [
                _columns(terms, length, batch) @ coefficients
                for terms, coefficients in zip(self.law.pieces, self.coefficients, strict=True)
            ]
        )

    def half_width(self, length: Numbers, batch: Numbers) -> Numbers:
        """Return half the 95 % interval of one more run at points, as a difference of logarithms.

        It includes the cells' misfit, the uncertainty of the coefficients and the spread of one run.
        """
        pieces = self._pieces(length, batch)
        active, cost = np.argmax(pieces, axis=0), np.max(pieces, axis=0)
        leverage = np.zeros_like(cost)
        for number, (terms, covariance) in enumerate(
            zip(self.law.pieces, self.covariances, strict=True)
        ):
            here = active == number
            rows = _columns(terms, length, batch)[here] / cost[here, None]
            leverage[here] = np.einsum("ij,jk,ik->i", rows, covariance, rows)
        variance = self.deviation**2 * (1 + leverage) + self.run_deviation**2
        return np.asarray(student(self.freedom) * np.sqrt(variance))

    def constants(self) -> dict[str, Interval]:
        """Return every constant with its interval, in the cost's unit.

        The width is that of the fit without bounds, which is no narrower than with them (Liew 1976),
        cut at 0 if the constant cannot be negative.
        """
        found: dict[str, Interval] = {}
        quantile = student(self.freedom)
        for number, terms in enumerate(self.law.pieces):
            errors = self.deviation * np.sqrt(np.diag(self.covariances[number]))
            for name, term, value, error in zip(
                self.law.names(number), terms, self.coefficients[number], errors, strict=True
            ):
                low, high = value - quantile * error, value + quantile * error
                bounded = term not in self.law.free
                low = max(low, 0.0) if bounded else low
                found[name] = Interval(float(value), float(low), float(high))
        return found


# As `student`, of a normal distribution.
NORMAL = float(ndtri((1 + CONFIDENCE) / 2))


@functools.cache
def student(freedom: int) -> float:
    """Return how many standard deviations half of a 95 % interval is, at these degrees of freedom."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def fit(laws: Sequence[Law], sample: CellMeans) -> Model:
    """Return the law that predicts left-out cells best, fitted to all of them; simpler laws first.

    Raises TooFewCellsError if none of the laws can be fitted to the cells.
    """
    candidates = [law for law in laws if _carried(law, sample)]
    if not candidates:
        needed = min(law.constants for law in laws) + SPARE_CELLS
        few = len(sample) < needed
        raise TooFewCellsError(TooFewCells(len(sample), needed) if few else CellsTooAlike())
    chosen, error = candidates[0], np.inf
    for law in candidates:
        own = max(_left_out_error(law, sample), ROUNDING)
        if own < SIMPLER_UNLESS * error:
            chosen, error = law, own
    return _fitted(chosen, sample)


def _carried(law: Law, sample: CellMeans) -> bool:
    """Return whether there are enough cells for a law, at points that tell its terms apart."""
    if len(sample) < law.constants + SPARE_CELLS:
        return False
    columns = _scaled(_columns(law.pieces[-1], sample.length, sample.batch) / sample.cost[:, None])
    return bool(np.linalg.det(columns.T @ columns) > _SINGULAR)


def _left_out_error(law: Law, sample: CellMeans) -> float:
    """Return the root mean square relative error on a cell, from a fit to all of the others.

    Of many cells only some are left out, evenly spread: enough to choose between laws.
    """
    count = len(sample)
    left_out = np.unique(np.linspace(0, count - 1, min(count, MOST_TRIED)).round().astype(int))
    weights = 1 - np.eye(count)[left_out]
    costs = _solve(law, sample, weights)[1]
    own = costs[np.arange(len(left_out)), left_out] / sample.cost[left_out]
    return float(np.sqrt(np.mean((own - 1) ** 2)))


def _fitted(law: Law, sample: CellMeans) -> Model:
    """Return a law fitted to all cells, with the covariances for its intervals."""
    coefficients, costs = _solve(law, sample, np.ones((1, len(sample))))
    residuals = costs[0] / sample.cost - 1
    freedom = len(sample) - law.constants
    pieces = [_columns(terms, sample.length, sample.batch) for terms in law.pieces]
    active = np.argmax([p @ c[0] for p, c in zip(pieces, coefficients, strict=True)], axis=0)
    covariances = tuple(
        _inverse(piece[active == number] / sample.cost[active == number, None])
        for number, piece in enumerate(pieces)
    )
    within = float(np.mean(1 - 1 / sample.runs)) * sample.spread**2
    return Model(
        law,
        tuple(c[0] for c in coefficients),
        covariances,
        float(np.sqrt(residuals @ residuals / freedom)),
        freedom,
        float(np.sqrt(within)),
    )


def _inverse(rows: Numbers) -> Numbers:
    """Return the inverse of a normal matrix, its columns scaled to one length before."""
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1
    scaled = rows / scale
    return np.asarray(np.linalg.pinv(scaled.T @ scaled, hermitian=True) / np.outer(scale, scale))


def _columns(terms: Sequence[str], length: Numbers, batch: Numbers) -> Numbers:
    return np.stack([TERMS[term](length, batch) for term in terms], axis=-1)


def _scaled(columns: Numbers) -> Numbers:
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def _solve(law: Law, sample: CellMeans, weights: Numbers) -> tuple[tuple[Numbers, ...], Numbers]:
    """Return a law fitted under each row of weights (0 or 1 per cell).

    That is the coefficients of each piece and the costs of every cell, both with one row per fit.
    """
    free = [np.array([t in law.free for t in terms]) for terms in law.pieces]
    free[:-1] = [np.zeros_like(of) for of in free[:-1]]
    columns = [_columns(terms, sample.length, sample.batch) for terms in law.pieces]
    if len(columns) == 1:
        coefficients = least_squares(columns[0], sample.cost, weights, free[0])
        return (coefficients,), coefficients @ columns[0].T
    return _solve_pieces(columns, free, sample, weights)


def _solve_pieces(
    columns: Sequence[Numbers],
    free: Sequence[NDArray[np.bool_]],
    sample: CellMeans,
    weights: Numbers,
) -> tuple[tuple[Numbers, ...], Numbers]:
    """Fit two pieces: for every split of the cells ordered by cost, each to its side; keep the best.

    Of many splits some are tried first, evenly, and then those around the best of them.
    """
    fits, cells = weights.shape
    first, last = columns[0].shape[1], cells - columns[1].shape[1]
    splits = np.arange(first, last + 1)
    if len(splits) > MOST_TRIED:
        coarse = np.linspace(first, last, MOST_TRIED).round().astype(int)
        *_, best = _split(columns, free, sample, weights, np.tile(coarse, (fits, 1)))
        reach = math.ceil((last - first) / (MOST_TRIED - 1))
        around = np.clip(best[:, None] + np.arange(-reach, reach + 1), first, last)
        return _split(columns, free, sample, weights, around)[:2]
    return _split(columns, free, sample, weights, np.tile(splits, (fits, 1)))[:2]


def _split(
    columns: Sequence[Numbers],
    free: Sequence[NDArray[np.bool_]],
    sample: CellMeans,
    weights: Numbers,
    splits: NDArray[np.intp],
) -> tuple[tuple[Numbers, ...], Numbers, NDArray[np.intp]]:
    """Return the best of each fit's own splits: coefficients, costs, and the split."""
    fits, cells = weights.shape
    rank = np.argsort(np.argsort(sample.cost, kind="stable"), kind="stable")
    below = rank < splits[..., None]
    pieces = []
    for number, side in enumerate((below, ~below)):
        sided = (weights[:, None, :] * side).reshape(-1, cells)
        pieces.append(least_squares(columns[number], sample.cost, sided, free[number]))
    costs = np.maximum(pieces[0] @ columns[0].T, pieces[1] @ columns[1].T)
    errors = ((costs / sample.cost - 1) ** 2).reshape(*splits.shape, cells) * weights[:, None, :]
    chosen = np.argmin(errors.sum(axis=2), axis=1)
    best = np.arange(fits) * splits.shape[1] + chosen
    return tuple(piece[best] for piece in pieces), costs[best], splits[np.arange(fits), chosen]


def least_squares(
    columns: Numbers, cost: Numbers, weights: Numbers, free: NDArray[np.bool_]
) -> Numbers:
    """Return coefficients of least relative squares, one row per row of weights.

    Those that are not `free` are not negative. If the cells of a row do not determine all the
    coefficients, those in excess are 0.
    """
    rows = columns / cost[:, None]
    scale = np.linalg.norm(rows, axis=0)
    rows = rows / scale
    normal = np.einsum("mi,ij,ik->mjk", weights, rows, rows)
    target = weights @ rows
    subsets = _subsets(len(free))
    best, valid = _best(normal, target, subsets[:1], free)
    (bounded,) = np.nonzero(~valid)
    if len(bounded):
        best[bounded], _ = _best(normal[bounded], target[bounded], subsets, free)
    return np.asarray(_refined(rows, weights, best, normal) / scale)


@functools.cache
def _subsets(columns: int) -> NDArray[np.bool_]:
    """Return the sets of columns that may be other than 0, as masks, the whole first."""
    masks = itertools.product([True, False], repeat=columns)
    return np.array([mask for mask in masks if any(mask)])


def _best(
    normal: Numbers, target: Numbers, subsets: NDArray[np.bool_], free: NDArray[np.bool_]
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return, for each row, the best solution in which only a subset of the coefficients is not 0.

    And whether there is one: determined, and not negative unless it is free; else all are 0.
    """
    eye = np.eye(len(free))
    own = np.where(subsets[:, None, :, None] & subsets[:, None, None, :], normal, eye)
    product = np.prod(np.diagonal(own, axis1=2, axis2=3), axis=2)
    singular = np.linalg.det(own) <= _SINGULAR * product
    own = np.where(singular[..., None, None], eye, own)
    solution = np.linalg.solve(own, np.where(subsets[:, None], target, 0)[..., None])[..., 0]
    valid = ~singular & ((solution >= 0) | free).all(axis=2)
    gain = np.where(valid, (solution * target).sum(axis=2), 0)  # what it takes from the squares
    chosen = np.argmax(gain, axis=0)
    rows = np.arange(len(target))
    found = valid[chosen, rows]
    return np.where(found[:, None], solution[chosen, rows], 0), found


def _refined(rows: Numbers, weights: Numbers, found: Numbers, normal: Numbers) -> Numbers:
    """Return solutions after one step of refinement, which recovers the precision that squaring lost."""
    residual = (1 - found @ rows.T) * weights
    zero = found == 0
    step = np.where(zero, 0, residual @ rows)
    masked = np.where(zero[:, :, None] | zero[:, None, :], 0, normal)
    masked = masked + np.einsum("mj,jk->mjk", zero.astype(float), np.eye(rows.shape[1]))
    return np.asarray(found + np.linalg.solve(masked, step[..., None])[..., 0])
