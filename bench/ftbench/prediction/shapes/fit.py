"""Fit: the size of every event as an exact function of batch size and length, from a few traces.

The peak itself cannot be fitted: it is the maximum of many sums, and which sum is the maximum changes.
But the size of a single storage is a sum of at most two simple terms, and traces of one workload differ in
nothing but sizes. So a few traced small cells give every other cell to the byte, in microseconds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.events import Kind, Trace

Shape = tuple[int, int]  # batch size, length

# Rows of a tile of fused attention (kAlignLSE in
# ATen/native/transformers/cuda/mem_eff_attention/kernel_forward.h).
ATTENTION_TILE = 32


def _tiles(length: float) -> float:
    """Return a length rounded up to whole tiles."""
    return -(-length // ATTENTION_TILE) * ATTENTION_TILE


# The length may be a fraction, if the examples of a batch are in one row.
Term = Callable[[int, float], float]

# The size of a storage in a transformer's step is one of these terms times a constant, or a sum of two such
# terms. The last is that of the row sums of fused attention, which come in whole tiles; those of S - 1 are of the
# labels of a language model, of which the first has no output before it.
TERMS: dict[str, Term] = {
    "1": lambda batch, length: 1,
    "B": lambda batch, length: batch,
    "S": lambda batch, length: length,
    "B S": lambda batch, length: batch * length,
    "S^2": lambda batch, length: length**2,
    "S - 1": lambda batch, length: length - 1,
    "B (S - 1)": lambda batch, length: batch * (length - 1),
    "B S^2": lambda batch, length: batch * length**2,
    "B ceil32(S)": lambda batch, length: batch * _tiles(length),
}
# In a step whose examples are in one row, B S is its length.
TERMS_OF_ONE_ROW: dict[str, Term] = {
    **TERMS,
    "B S - 1": lambda batch, length: batch * length - 1,
    "(B S)^2": lambda batch, length: (batch * length) ** 2,
    "ceil32(B S)": lambda batch, length: _tiles(round(batch * length)),
}
MOST_TERMS = 2
# Each size has two unknowns; at least as many further traces can contradict a wrong choice of terms.
FEWEST_TRACES = 5


class FitError(PredictionError):
    """Traces that cannot be fitted: each shape has to be traced by itself."""


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTrace:
    """A trace whose sizes are functions of batch size and length.

    `coefficients` has one row per distinct size and one column per term, of `TERMS` or, with `one_row`, of
    `TERMS_OF_ONE_ROW`; `row` is the row of each event's size,
    `kernel_rows` are the rows of each kernel's sizes.
    """

    template: Trace
    one_row: bool
    coefficients: NDArray[np.float64]
    row: NDArray[np.int32]
    kernel_rows: tuple[tuple[int, ...], ...]

    def at(self, batch: int, length: int) -> Trace:
        """Return the trace of a cell."""
        sizes = self._sizes(batch, length)
        whole = sizes.tolist()
        kernels = tuple(
            kernel._replace(sizes=tuple(whole[row] for row in rows))
            for kernel, rows in zip(self.template.kernels, self.kernel_rows, strict=True)
        )
        return dataclasses.replace(self.template, nbytes=sizes[self.row], kernels=kernels)

    def in_order(self, batch: int, lengths: Sequence[float]) -> Trace:
        """Return the trace of steps whose batches have these lengths, one each, in this order.

        The length of examples in one row is their mean, which need not be whole.
        A block has the length of the batch of the step that allocated it, even if a later step frees it.
        """
        steps = np.array([site.step for site in self.template.sites])[self.template.site]
        place = np.clip(steps, 1, len(lengths)) - 1
        born = np.zeros(int(self.template.block.max(initial=0)) + 1, dtype=np.int64)
        allocated = self.template.kind == Kind.ALLOCATE
        born[self.template.block[allocated]] = place[allocated]
        freed = self.template.kind == Kind.FREE
        place[freed] = born[self.template.block[freed]]
        sizes = np.stack([self._sizes(batch, length) for length in lengths])
        kernel_place = np.zeros(len(self.template.kernels), dtype=np.int64)
        launched = self.template.kind == Kind.KERNEL
        kernel_place[self.template.block[launched]] = place[launched]
        kernels = tuple(
            kernel._replace(sizes=tuple(int(sizes[step, row]) for row in rows))
            for kernel, rows, step in zip(
                self.template.kernels, self.kernel_rows, kernel_place, strict=True
            )
        )
        return dataclasses.replace(self.template, nbytes=sizes[place, self.row], kernels=kernels)

    def _sizes(self, batch: int, length: float) -> NDArray[np.int64]:
        terms = terms_at(batch, length, one_row=self.one_row)
        return np.rint(self.coefficients @ terms).astype(np.int64)

    def peak_bytes(self, batch: int, length: int) -> int:
        """Return the peak of live requested bytes of a cell: `at(batch, length).peak_bytes`."""
        return int((self._sums @ terms_at(batch, length, one_row=self.one_row)).max())

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        """Return the coefficients of the live bytes after each event, only of those that can be the peak.

        Every term is positive, so a sum whose coefficients are all at most another's is never larger.
        """
        live = np.cumsum(self.template.signs[:, None] * self.coefficients[self.row], axis=0)
        sums: NDArray[np.float64] = np.unique(live, axis=0)[::-1]
        kept: list[NDArray[np.float64]] = []
        for candidate in sums[np.argsort(-sums.sum(axis=1), kind="stable")]:
            if not any((candidate <= other).all() for other in kept):
                kept.append(candidate)
        return np.array(kept)


def fit_events(traces: Mapping[Shape, Trace], *, one_row: bool = False) -> FittedTrace:
    """Return a fitted trace for all shapes, from the traces of at least five shapes.

    `one_row` says that the examples of a batch are in one row.

    The fit holds for other lengths only if the traces have several lengths, and likewise for batch sizes.
    Raises FitError if the traces differ in more than sizes, if a size is not an exact sum of whole
    multiples of one or two terms, or if the shapes do not determine which terms.
    """
    if len(traces) < FEWEST_TRACES:
        raise FitError(
            "too few traces to fit", got=str(len(traces)), expected=f"at least {FEWEST_TRACES}"
        )
    first, *others = traces.values()
    for shape, other in zip(list(traces)[1:], others, strict=True):
        if not first.same_events(other):
            raise FitError("the steps of two shapes differ in more than sizes", got=str(shape))
    samples = np.array([trace.nbytes for trace in traces.values()]).T
    kernel_samples = [
        np.array([trace.kernels[place].sizes for trace in traces.values()]).T
        for place in range(len(first.kernels))
    ]
    stacked = np.concatenate([samples, *(s.reshape(-1, len(traces)) for s in kernel_samples)])
    distinct, row = np.unique(stacked, axis=0, return_inverse=True)
    row = row.reshape(-1)
    lengths = [len(kernel.sizes) for kernel in first.kernels]
    ends = np.cumsum([len(samples), *lengths])
    kernel_rows = tuple(
        tuple(row[end - count : end].tolist())
        for end, count in zip(ends[1:].tolist(), lengths, strict=True)
    )
    return FittedTrace(
        template=first,
        one_row=one_row,
        coefficients=_coefficients(distinct, list(traces), one_row=one_row),
        row=row[: len(samples)].astype(np.int32),
        kernel_rows=kernel_rows,
    )


def _elsewhere(shapes: list[Shape]) -> list[Shape]:
    """Return a few other shapes, with the same length or batch size if the shapes have only one."""
    batches, lengths = ({shape[axis] for shape in shapes} for axis in (0, 1))
    return [
        (
            min(batches) if len(batches) == 1 else batch,
            min(lengths) if len(lengths) == 1 else length,
        )
        for batch, length in ((11, 97), (97, 1013), (1013, 33))
    ]


def terms_at(batch: int, length: float, *, one_row: bool) -> NDArray[np.float64]:
    """Return the value of every term at a shape."""
    terms = TERMS_OF_ONE_ROW if one_row else TERMS
    return np.array([term(batch, length) for term in terms.values()], dtype=np.float64)


def _coefficients(
    distinct: NDArray[np.int64], shapes: list[Shape], *, one_row: bool
) -> NDArray[np.float64]:
    """Return each size's coefficients, with the fewest terms that give it exactly at all shapes.

    Raises FitError if two choices of equally many terms do, but differ at other shapes.
    Sizes and coefficients are whole numbers below 2**53, which doubles represent exactly.
    """
    terms, elsewhere = (
        np.array([terms_at(*shape, one_row=one_row) for shape in of])
        for of in (shapes, _elsewhere(shapes))
    )
    found = np.zeros((len(distinct), terms.shape[1]))
    left = np.ones(len(distinct), dtype=bool)
    for count in range(1, MOST_TERMS + 1):
        sizes = np.flatnonzero(left)
        for choice in itertools.combinations(range(terms.shape[1]), count):
            columns = terms[:, choice]
            solved, _, rank, _ = np.linalg.lstsq(
                columns, distinct[sizes].T.astype(float), rcond=None
            )
            if rank < count:
                continue
            whole = np.rint(solved)
            exact = (columns @ whole == distinct[sizes].T).all(axis=0) & (whole >= 0).all(axis=0)
            made = np.zeros((int(exact.sum()), terms.shape[1]))
            made[:, choice] = whole.T[exact]
            rows, new = sizes[exact], left[sizes[exact]]
            if ((made @ elsewhere.T != found[rows] @ elsewhere.T).any(axis=1) & ~new).any():
                raise FitError(
                    "these shapes do not determine the formulas of sizes",
                    got=str(shapes),
                    expected="several batch sizes and lengths, and lengths that differ modulo 32",
                )
            found[rows[new]] = made[new]
            left[rows] = False
    if left.any():
        unfit = dict(zip(shapes, distinct[left][0].tolist(), strict=True))
        raise FitError("a size is not a sum of two terms", got=str(unfit))
    return found
