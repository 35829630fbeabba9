"""The traces of one workload in every shape, from as few real traces as possible.

If five traces have the same sequence of events, whatever the batch and the length, all other shapes are computed
from them. A batch of one has events of its own, and so has a length for which masks are padded: these are fitted
apart if there are many, or traced. The traces of another rank, or of another number of ranks, differ in the sizes
of shards: two shapes are traced, one to correct a fit that is known, one to check it.
"""

from __future__ import annotations

import dataclasses
import itertools
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from ftbench.base.errors import FtbenchError, PredictionError
from ftbench.plan.cell import Cell
from ftbench.prediction.lengths import ROUNDED_TO, SequenceLengths
from ftbench.prediction.shapes.fit import (
    ATTENTION_TILE,
    FEWEST_TRACES,
    FitError,
    FittedTrace,
    Shape,
    fit_events,
)
from ftbench.prediction.shapes.refit import refit
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.trace_trainer import Batches, trace_trainer
from ftbench.prediction.trace.tracer import Target
from ftbench.prediction.trace.work import count_work
from ftbench.records.prediction import CellWork

Taken = TypeVar("Taken")

# Runs a function on every argument and returns the results in order; in processes or in this one.
Map = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

_FIT_BATCHES = (3, 5, 7, 2, 4)
_CHECK = 11  # a batch that is not used for fits, only to check them
_SHORTEST_FIT = 16


@dataclasses.dataclass(frozen=True)
class ShapeTracer:
    """Traces one workload in any shape: cells that differ only in shape and in settings without effect on memory.

    The target says whether their batches have padding. Of cells of several processes, `rank` is traced.
    """

    cell: Cell
    target: Target
    sequence_lengths: SequenceLengths
    rank: int = 0

    @property
    def ranks(self) -> Ranks | None:
        """Return the processes of a cell, of which one is traced; None for a single one."""
        number = self.cell.num_processes
        return None if number == 1 else Ranks(number, rank=self.rank)

    def trace(self, shape: Shape) -> Trace:
        """Return the trace of one shape, from the Trainer itself; raises PredictionError."""
        return self._traced(
            shape,
            lambda cell, batches: trace_trainer(
                cell, self.target, batches=batches, ranks=self.ranks
            ),
        )

    def work(self, shape: Shape) -> CellWork:
        """Return the work of one shape, from a trace of its own; raises PredictionError."""
        return self._traced(shape, lambda cell, batches: count_work(cell, self.target, batches))

    def _traced(self, shape: Shape, take: Callable[[Cell, Batches], Taken]) -> Taken:
        """Return the result of `take` for a cell of this shape; raises PredictionError for torch's errors."""
        batch, length = shape
        cell = self.cell.with_shape(batch, length)
        try:
            return take(cell, Batches((length,), self.sequence_lengths.labels))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise PredictionError(
                "the sizes of this model's tensors depend on the content of a batch",
                where=cell.model.source.reference,
                got=str(error.func),
            ) from error
        except FtbenchError:
            raise
        except Exception as error:  # an unusual model may raise anything without data
            traceback.print_exc()
            raise PredictionError(
                f"this model could not be traced: {error}",
                where=cell.model.source.reference,
                got=f"{type(error).__name__} at batch {batch}, length {length}",
            ) from error

    @property
    def one_row(self) -> bool:
        """Return whether the examples of a batch are in one row."""
        return self.cell.packing == "padding-free"

    def regular(self, shape: Shape) -> bool:
        """Return whether a shape has the same events as most shapes.

        With one example or one token, dimensions disappear; torch's fused attention pads the rows of a mask
        to a multiple of eight.
        """
        batch, length = shape
        return batch > 1 and self._aligned(length)

    def one_of_many(self, shape: Shape) -> bool:
        """Return whether a shape has the same events as most shapes of one example have."""
        batch, length = shape
        return batch == 1 and self._aligned(length)

    def _aligned(self, length: int) -> bool:
        return length > 1 and (length % ROUNDED_TO == 0 or self.cell.attn_implementation != "sdpa")


@dataclasses.dataclass(frozen=True)
class ShapeTraces:
    """The traces of a workload's shapes: fitted for all lengths, or by length, or traced.

    `everywhere` and `by_length` are of batches of several examples, `of_one` is of those of one.
    """

    everywhere: FittedTrace | None
    by_length: dict[int, FittedTrace | None]  # of lengths that `everywhere` does not hold for
    traced: dict[Shape, Trace]
    of_one: FittedTrace | None = None

    def fitted(self, length: int) -> FittedTrace | None:
        """Return the fit for all batch sizes at a length; None if there is none."""
        return self.by_length.get(length, self.everywhere)

    def at(self, shape: Shape) -> Trace:
        """Return the trace of a requested shape."""
        if shape in self.traced:
            return self.traced[shape]
        fitted = self._fitted_at(shape)
        assert fitted is not None, shape
        return fitted.at(*shape)

    def _fitted_at(self, shape: Shape) -> FittedTrace | None:
        batch, length = shape
        return self.of_one if batch == 1 else self.fitted(length)

    def peak_bytes(self, shape: Shape) -> int:
        """Return the peak of live requested bytes of a shape."""
        if shape in self.traced:
            return self.traced[shape].peak_bytes
        fitted = self._fitted_at(shape)
        assert fitted is not None, shape
        return fitted.peak_bytes(*shape)

    def managed_bytes(self, shape: Shape) -> int:
        """Return the bytes of a shape in CUDA's managed memory, which are the same for all that a fit holds for."""
        if shape in self.traced:
            return self.traced[shape].managed_bytes
        fitted = self._fitted_at(shape)
        assert fitted is not None, shape
        return fitted.template.managed_bytes

    def in_orders(self, batch: int, orders: Iterable[Sequence[float]]) -> list[Trace]:
        """Return the traces of steps whose batches have these lengths; none if there is no fit for them."""
        fitted = self.everywhere
        if fitted is None or batch == 1:
            return []
        return [fitted.in_order(batch, order) for order in orders]


def trace_shapes(
    shape_tracer: ShapeTracer,
    shapes: Collection[Shape],
    run: Map,
    *,
    every_batch: bool,
    alike: Sequence[ShapeTraces] = (),
) -> ShapeTraces:
    """Return the traces of a workload for these shapes; with `every_batch`, for all batch sizes.

    A fit is accepted only if it also reproduces, event by event, a shape that it was not made from. `alike` are the
    traces of workloads that differ from this one in nothing but the rank or the number of ranks.
    """
    regular = sorted(shape for shape in shapes if shape_tracer.regular(shape))
    if not every_batch and len(regular) <= FEWEST_TRACES:
        return ShapeTraces(None, {}, _traced(shape_tracer, sorted(shapes), run))
    asked = _Asked.of(shape_tracer, shapes, every_batch=every_batch)
    fitted = [one for one in alike if one.everywhere is not None]
    traces: dict[Shape, Trace] = {}
    if fitted:
        traces = _traced(shape_tracer, asked.pairs_and_odd, run)
        if (found := _from_those_alike(asked, traces, fitted)) is not None:
            return found
    wanted = [*asked.fit_from, *asked.check, *asked.ones_fit_from, *asked.odd]
    traces |= _traced(shape_tracer, [shape for shape in wanted if shape not in traces], run)
    one_row = shape_tracer.one_row
    everywhere = _fit(traces, asked.fit_from, asked.check, one_row=one_row)
    of_one = None
    if asked.ones:
        of_one = _fit(traces, asked.ones_fit_from[:-1], asked.ones_fit_from[-1:], one_row=one_row)
    ones_left = [one for one in asked.ones if of_one is None and one not in traces]
    traces |= _traced(shape_tracer, ones_left, run)
    traced = {shape: traces[shape] for shape in (*asked.odd, *asked.ones) if shape in traces}
    if everywhere is None:
        by_length = _by_length(shape_tracer, regular, asked.apart, traced, run)
        return dataclasses.replace(by_length, of_one=of_one)
    fits, _ = _fits_of(shape_tracer, asked.apart, run)
    return ShapeTraces(everywhere, fits, traced, of_one)


def _traced(shape_tracer: ShapeTracer, shapes: Iterable[Shape], run: Map) -> dict[Shape, Trace]:
    """Return the trace of each shape."""
    wanted = list(dict.fromkeys(shapes))
    return dict(zip(wanted, run(shape_tracer.trace, wanted), strict=True))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The shapes that are asked for, and those that are traced for fits.

    `ones` are of one example, if there are enough to be fitted, and `ones_fit_from` are the shapes for it, the last
    one to check. `apart` are lengths at which every batch has other events, `odd` all shapes that no fit is for.
    """

    fit_from: list[Shape]
    check: list[Shape]
    ones: list[Shape]
    ones_fit_from: list[Shape]
    odd: list[Shape]
    apart: list[int]

    @classmethod
    def of(cls, tracer: ShapeTracer, shapes: Collection[Shape], *, every_batch: bool) -> _Asked:
        regular = sorted(shape for shape in shapes if tracer.regular(shape))
        fit_from = _fit_shapes([length for _, length in regular] or [s[1] for s in shapes])
        longest = max(length for _, length in fit_from)
        check = [shape for shape in regular if shape not in fit_from][-1:] or [(_CHECK, longest)]
        ones = sorted(shape for shape in shapes if tracer.one_of_many(shape))
        ones_fit_from: list[Shape] = []
        if len(ones) > FEWEST_TRACES + 1:
            ones_fit_from = [(1, length) for _, length in _fit_shapes([s[1] for s in ones])]
            ones_fit_from.append([one for one in ones if one not in ones_fit_from][-1])
        else:
            ones = []
        odd = sorted(set(shapes) - set(regular) - set(ones))
        apart = sorted(
            {length for _, length in odd if every_batch and not tracer.regular((2, length))}
        )
        return cls(fit_from, check, ones, ones_fit_from, odd, apart)

    @property
    def pairs(self) -> list[tuple[Shape, Shape]]:
        """Return two shapes for each fit, one to correct a fit of a workload alike, and one to check that.

        They are as far apart as the shapes that are asked for.
        """
        found = [(self.fit_from[0], self.check[0])]
        found += [((_FIT_BATCHES[0], length), (_CHECK, length)) for length in self.apart]
        if self.ones:
            found.append((self.ones_fit_from[0], self.ones_fit_from[-1]))
        return found

    @property
    def pairs_and_odd(self) -> list[Shape]:
        """Return the shapes that are traced to correct fits of a workload alike."""
        return [*itertools.chain(*self.pairs), *self.odd]


def _from_those_alike(
    asked: _Asked, traces: dict[Shape, Trace], alike: Sequence[ShapeTraces]
) -> ShapeTraces | None:
    """Return the traces, from fits of a workload alike and two traces for each; None if none of them serves."""
    for other in alike:
        known = [other.everywhere, *map(other.fitted, asked.apart)]
        known += [other.of_one] * bool(asked.ones)
        fits = [
            _corrected(fit, traces, *pair) for fit, pair in zip(known, asked.pairs, strict=True)
        ]
        if None in fits:
            continue
        of_one = fits.pop() if asked.ones else None
        everywhere, *apart = fits
        traced = {shape: traces[shape] for shape in asked.odd}
        by_length = dict(zip(asked.apart, apart, strict=True))
        return ShapeTraces(everywhere, by_length, traced, of_one)
    return None


def _corrected(
    fitted: FittedTrace | None, traces: dict[Shape, Trace], made_from: Shape, check: Shape
) -> FittedTrace | None:
    """Return a fit of a workload alike with this one's sizes; None if a trace contradicts it."""
    if fitted is None:
        return None
    try:
        found = refit(fitted, made_from, traces[made_from])
    except FitError:
        return None
    return found if _agrees(found, check, traces[check]) else None


def _by_length(
    shape_tracer: ShapeTracer,
    regular: Sequence[Shape],
    apart: Collection[int],
    traced: dict[Shape, Trace],
    run: Map,
) -> ShapeTraces:
    """Return the traces if lengths differ in more than sizes: each length is fitted by itself."""
    fits, traces = _fits_of(shape_tracer, {length for _, length in regular}.union(apart), run)
    left = [shape for shape in regular if fits[shape[1]] is None and shape not in traces]
    traces |= _traced(shape_tracer, left, run)
    rest = {shape: traces[shape] for shape in regular if fits[shape[1]] is None}
    return ShapeTraces(None, fits, traced | rest)


def _fits_of(
    shape_tracer: ShapeTracer, lengths: Collection[int], run: Map
) -> tuple[dict[int, FittedTrace | None], dict[Shape, Trace]]:
    """Return the fit for all batch sizes at each length, None if there is none, and the traces."""
    batches = (*_FIT_BATCHES, _CHECK)
    wanted = [(batch, length) for length in sorted(lengths) for batch in batches]
    traces = _traced(shape_tracer, wanted, run)
    fits = {
        length: _fit(
            traces,
            [(batch, length) for batch in _FIT_BATCHES],
            [(_CHECK, length)],
            one_row=shape_tracer.one_row,
        )
        for length in sorted(lengths)
    }
    return fits, traces


def _fit(
    traces: dict[Shape, Trace], made_from: Sequence[Shape], check: Sequence[Shape], *, one_row: bool
) -> FittedTrace | None:
    try:
        fitted = fit_events({shape: traces[shape] for shape in made_from}, one_row=one_row)
    except FitError:
        return None
    return fitted if all(_agrees(fitted, shape, traces[shape]) for shape in check) else None


def _agrees(fitted: FittedTrace, shape: Shape, traced: Trace) -> bool:
    """Return whether a fit reproduces a trace, event by event."""
    computed = fitted.at(*shape)
    same = traced.same_events(computed) and traced.kernels == computed.kernels
    return same and np.array_equal(traced.nbytes, computed.nbytes)


def _fit_shapes(lengths: Sequence[int]) -> list[Shape]:
    """Return five small shapes with lengths that are multiples of eight, spread over the given lengths."""
    longest = max(max(lengths) // ROUNDED_TO * ROUNDED_TO, _SHORTEST_FIT + 4 * ROUNDED_TO)
    shortest = min(max(min(lengths), _SHORTEST_FIT), longest - 4 * ROUNDED_TO)
    spread = np.linspace(shortest, longest, len(_FIT_BATCHES)) // ROUNDED_TO * ROUNDED_TO
    if len(set(spread % ATTENTION_TILE)) == 1:  # else whole tiles and lengths would be proportional
        spread[1:4] -= np.array([3, 2, 1]) * ROUNDED_TO
    return list(zip(_FIT_BATCHES, map(int, spread), strict=True))
