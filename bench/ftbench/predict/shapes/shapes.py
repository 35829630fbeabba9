"""The traces of one workload in every shape, from as few real traces as possible.

If five traces have the same sequence of events, whatever the batch and the length, all other shapes are computed
from them. A shape with other events (a batch of one, a length for which masks are padded) is traced by itself.
"""

from __future__ import annotations

import dataclasses
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
from ftbench.predict.lengths import ROUNDED_TO, SequenceLengths
from ftbench.predict.shapes.fit import (
    ATTENTION_TILE,
    FEWEST_TRACES,
    FitError,
    FittedTrace,
    Shape,
    fit_events,
)
from ftbench.predict.trace.events import Trace
from ftbench.predict.trace.ranks import Ranks
from ftbench.predict.trace.trace_trainer import Batches, trace_trainer
from ftbench.predict.trace.tracer import Target
from ftbench.predict.trace.work import count_work
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
        aligned = length % ROUNDED_TO == 0 or self.cell.attn_implementation != "sdpa"
        return batch > 1 and length > 1 and aligned


@dataclasses.dataclass(frozen=True)
class ShapeTraces:
    """The traces of a workload's shapes: fitted for all lengths, or by length, or traced."""

    everywhere: FittedTrace | None
    by_length: dict[int, FittedTrace | None]  # of lengths that `everywhere` does not hold for
    traced: dict[Shape, Trace]

    def fitted(self, length: int) -> FittedTrace | None:
        """Return the fit for all batch sizes at a length; None if there is none."""
        return self.by_length.get(length, self.everywhere)

    def at(self, shape: Shape) -> Trace:
        """Return the trace of a requested shape."""
        if shape in self.traced:
            return self.traced[shape]
        fitted = self.fitted(shape[1])
        assert fitted is not None, shape
        return fitted.at(*shape)

    def peak_bytes(self, shape: Shape) -> int:
        """Return the peak of live requested bytes of a shape."""
        fitted = self.fitted(shape[1])
        if shape in self.traced or fitted is None:
            return self.traced[shape].peak_bytes
        return fitted.peak_bytes(*shape)

    def in_orders(self, batch: int, orders: Iterable[Sequence[float]]) -> list[Trace]:
        """Return the traces of steps whose batches have these lengths; none if there is no fit for them."""
        fitted = self.everywhere
        if fitted is None or batch == 1:
            return []
        return [fitted.in_order(batch, order) for order in orders]


def trace_shapes(
    shape_tracer: ShapeTracer, shapes: Collection[Shape], run: Map, *, every_batch: bool
) -> ShapeTraces:
    """Return the traces of a workload for these shapes; with `every_batch`, for all batch sizes.

    A fit is accepted only if it also reproduces, event by event, a shape that it was not made from.
    """
    regular = sorted(shape for shape in shapes if shape_tracer.regular(shape))
    if not every_batch and len(regular) <= FEWEST_TRACES:
        wanted = sorted(shapes)
        return ShapeTraces(
            None, {}, dict(zip(wanted, run(shape_tracer.trace, wanted), strict=True))
        )
    odd = sorted(set(shapes) - set(regular))
    made_from = _fit_shapes([length for _, length in regular] or [s[1] for s in shapes])
    longest = max(length for _, length in made_from)
    check = [shape for shape in regular if shape not in made_from][-1:] or [(_CHECK, longest)]
    wanted = list(dict.fromkeys([*made_from, *check, *odd]))
    traces = dict(zip(wanted, run(shape_tracer.trace, wanted), strict=True))
    traced = {shape: traces[shape] for shape in odd}
    everywhere = _fit(
        {shape: traces[shape] for shape in made_from}, traces, check, one_row=shape_tracer.one_row
    )
    # Lengths at which every batch has other events.
    apart = {length for _, length in odd if every_batch and not shape_tracer.regular((2, length))}
    if everywhere is None:
        return _by_length(shape_tracer, regular, apart, traced, run)
    fits, _ = _fits_of(shape_tracer, apart, run)
    return ShapeTraces(everywhere, fits, traced)


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
    traces |= dict(zip(left, run(shape_tracer.trace, left), strict=True))
    rest = {shape: traces[shape] for shape in regular if fits[shape[1]] is None}
    return ShapeTraces(None, fits, traced | rest)


def _fits_of(
    shape_tracer: ShapeTracer, lengths: Collection[int], run: Map
) -> tuple[dict[int, FittedTrace | None], dict[Shape, Trace]]:
    """Return the fit for all batch sizes at each length, None if there is none, and the traces."""
    batches = (*_FIT_BATCHES, _CHECK)
    wanted = [(batch, length) for length in sorted(lengths) for batch in batches]
    traces = dict(zip(wanted, run(shape_tracer.trace, wanted), strict=True))
    fits = {
        length: _fit(
            {(batch, length): traces[batch, length] for batch in _FIT_BATCHES},
            traces,
            [(_CHECK, length)],
            one_row=shape_tracer.one_row,
        )
        for length in sorted(lengths)
    }
    return fits, traces


def _fit(
    made_from: dict[Shape, Trace],
    traces: dict[Shape, Trace],
    check: Sequence[Shape],
    *,
    one_row: bool,
) -> FittedTrace | None:
    try:
        fitted = fit_events(made_from, one_row=one_row)
    except FitError:
        return None
    for shape in check:
        computed, traced = fitted.at(*shape), traces[shape]
        if not (traced.same_events(computed) and np.array_equal(traced.nbytes, computed.nbytes)):
            return None
    return fitted


def _fit_shapes(lengths: Sequence[int]) -> list[Shape]:
    """Return five small shapes with lengths that are multiples of eight, spread over the given lengths."""
    longest = max(max(lengths) // ROUNDED_TO * ROUNDED_TO, _SHORTEST_FIT + 4 * ROUNDED_TO)
    shortest = min(max(min(lengths), _SHORTEST_FIT), longest - 4 * ROUNDED_TO)
    spread = np.linspace(shortest, longest, len(_FIT_BATCHES)) // ROUNDED_TO * ROUNDED_TO
    if len(set(spread % ATTENTION_TILE)) == 1:  # else whole tiles and lengths would be proportional
        spread[1:4] -= np.array([3, 2, 1]) * ROUNDED_TO
    return list(zip(_FIT_BATCHES, map(int, spread), strict=True))
