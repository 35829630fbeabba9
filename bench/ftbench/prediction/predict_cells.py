"""Predictions for the cells of a profile on cards: peaks, verdicts, largest batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from ftbench.base.errors import PredictionError, ProfileError, WorkloadError
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.profile import Packing
from ftbench.prediction.bisection import last, last_from_above
from ftbench.prediction.breakdown.allocations import predicted_allocations
from ftbench.prediction.breakdown.composition import compose
from ftbench.prediction.breakdown.parts import breakdown
from ftbench.prediction.forks import runner
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.shapes.fit import Shape
from ftbench.prediction.shapes.shapes import Map, ShapeTracer, ShapeTraces, trace_shapes
from ftbench.prediction.simulate.cards import Card, card_of, on_card
from ftbench.prediction.simulate.ignored_variables import ignored_variables
from ftbench.prediction.simulate.nccl import SEVERAL_PROCESSES
from ftbench.prediction.simulate.older_torch import version_note, version_of_workspaces
from ftbench.prediction.simulate.simulation import Replays, replays_of
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.bitsandbytes_package import managed_notes
from ftbench.prediction.trace.eight_bit_products import MOST_OUTLIER_COLUMNS
from ftbench.prediction.trace.evaluation import Evaluation
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.flash_attention import FLASH_ATTENTION_2
from ftbench.prediction.trace.trace_trainer import refuse_uncovered
from ftbench.prediction.trace.tracer import STEPS, Target
from ftbench.prediction.workload_groups import (
    has_padding,
    shape_of,
    targets_of,
    with_least_data,
    workload_groups,
    workload_of_any_number,
)
from ftbench.records.predicted_allocations import PredictedAllocations
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    CellWork,
    LargestBatch,
    PredictedBytes,
    Predictions,
    PredictRequest,
    Refused,
    RefusedCards,
)

# The search for the largest batch ends here.
LARGEST_BATCH = 1 << 16
# What is traced, by the workload without its number of processes, and by target; the latest is the first.
Alike = dict[tuple[str, Target], list[ShapeTraces]]


def predict(
    cells: Sequence[Cell],
    gpus: Sequence[Gpu] = (),
    *,
    sequence_lengths: SequenceLengths | None = None,
    request: PredictRequest | None = None,
    alike: Alike | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """Return the predicted memory of cells on cards; without cards, the exact peak of their tensors.

    `sequence_lengths` comes from the data (`read_lengths`); without it, two labels and padding are assumed.
    `request` has the options. `alike` collects traces for further calls with the same data. Cells that prediction
    does not cover are in `Predictions.refused`.
    """
    request = request or PredictRequest(cells=tuple(cells), gpus=tuple(gpus))
    sequence_lengths = sequence_lengths or SequenceLengths()
    cards = [card_of(gpu, version_of_workspaces(request.assume_torch)) for gpu in gpus]
    order = {card.name: place for place, card in enumerate(cards)}
    refused = {cell.cell_id: reason for cell in cells if (reason := _refusal(cell)) is not None}
    covered = [cell for cell in dict.fromkeys(cells) if cell.cell_id not in refused]
    with ExitStack() as stack:
        run = runner(stack, request.processes)
        found: dict[str, CellPrediction] = {}
        not_on: list[RefusedCards] = []
        largest: list[LargestBatch] = []
        known: Alike = {} if alike is None else alike
        for group in workload_groups(covered, sequence_lengths):
            on_progress(f"tracing {group[0].model.source.reference}")
            for target, its_cards in targets_of(group[0], cards, request):
                try:
                    traced = _Group(group, target, sequence_lengths, request, its_cards, run)
                    traced.trace(known)
                except (PredictionError, WorkloadError, ProfileError) as error:
                    on = tuple(card.name for card in its_cards)
                    not_on += [
                        RefusedCards(cell_id=cell.cell_id, gpus=on, reason=str(error))
                        for cell in group
                    ]
                    continue
                on_progress(f"simulating {len(group)} cells")
                for prediction in traced.predictions():
                    before = found.get(prediction.cell_id)
                    found[prediction.cell_id] = _joined(before, prediction, order)
                if request.largest_batch:
                    largest += traced.largest()
    refused |= {one.cell_id: one.text for one in reversed(not_on) if one.cell_id not in found}
    return Predictions(
        cells=tuple(found[cell.cell_id] for cell in covered if cell.cell_id in found),
        refused=tuple(Refused(cell_id=name, reason=why) for name, why in refused.items()),
        refused_cards=tuple(one for one in not_on if one.cell_id in found),
        largest=tuple(sorted(largest, key=lambda one: (one.max_length, order[one.gpu]))),
        notes=(
            *_notes(cells, sequence_lengths, request),
            *managed_notes(found.values()),
            *version_note(request.assume_torch),
        ),
        versions=patches.library_versions(),
        data_at_hand=request.data_at_hand,
    )


class _Group:
    """The cells of one workload, on cards that choose the same attention kernels."""

    def __init__(
        self,
        cells: Sequence[Cell],
        target: Target,
        sequence_lengths: SequenceLengths,
        request: PredictRequest,
        cards: Sequence[Card],
        run: Map,
    ) -> None:
        self._cells = cells
        self._sequence_lengths = sequence_lengths
        self._request = request
        self._cards = cards
        self._run = run
        target = dataclasses.replace(target, padding=has_padding(cells[0], sequence_lengths))
        self._shape_tracer = ShapeTracer(cells[0], target, sequence_lengths)
        self._shapes = {cell.cell_id: shape_of(cell, sequence_lengths) for cell in cells}

    def trace(self, alike: Alike) -> None:
        """Trace the shapes from which the predictions of all cells follow.

        `alike` has what is traced already.
        """
        cell = self._cells[0]
        self._traces = self._traced(
            self._shape_tracer,
            alike,
            every_batch=self._request.largest_batch or cell.batches_vary,
        )
        self._least: ShapeTraces | None = None
        if least := with_least_data(cell, self._shape_tracer.target):
            tracer = dataclasses.replace(self._shape_tracer, target=least)
            every_batch = self._request.largest_batch and self._outliers
            self._least = self._traced(tracer, alike, every_batch=every_batch)
        self._last: ShapeTraces | None = None
        sharded = cell.parallel is not None and cell.parallel.strategy != "ddp"
        if sharded and self._request.smallest_rank:
            last_rank = cell.num_processes - 1  # it has the smallest shards
            tracer = dataclasses.replace(self._shape_tracer, rank=last_rank)
            self._last = self._traced(tracer, alike, every_batch=False)

    def _traced(
        self,
        tracer: ShapeTracer,
        alike: Alike,
        *,
        every_batch: bool,
    ) -> ShapeTraces:
        workload = workload_of_any_number(tracer.cell, self._sequence_lengths)
        known = alike.setdefault((workload, tracer.target), [])
        shapes = set(self._shapes.values())
        found = trace_shapes(tracer, shapes, self._run, every_batch=every_batch, alike=known)
        known.insert(0, found)  # the next is likeliest like this one
        return found

    def predictions(self) -> list[CellPrediction]:
        """Return a prediction for every cell; cells of one shape share their simulations."""
        shapes = sorted(set(self._shapes.values()))
        on_cards: dict[Shape, tuple[CardPrediction, ...]] = dict.fromkeys(shapes, ())
        works = self._works(shapes) if self._request.work else {}
        if self._cards:
            on_cards = dict(zip(shapes, self._run(self._simulator().on_cards, shapes), strict=True))
        return [
            self._prediction(cell, on_cards[self._shapes[cell.cell_id]]).model_copy(
                update=works.get(self._shapes[cell.cell_id], {})
            )
            for cell in self._cells
        ]

    def _works(self, shapes: Sequence[Shape]) -> dict[Shape, dict[str, CellWork]]:
        """Return the work of each shape, and a lower bound of it if the lengths of batches vary.

        Work grows faster than linearly with length, and a batch is at least as long as its examples, so the
        work at the mean length is a lower bound.
        """
        counted = dict(zip(shapes, self._run(self._shape_tracer.work, shapes), strict=True))
        found = {shape: {"work": work} for shape, work in counted.items()}
        if self._varying() is not None:
            least = [(batch, self._sequence_lengths.mean(length)) for batch, length in shapes]
            for shape, work in zip(shapes, self._run(self._shape_tracer.work, least), strict=True):
                found[shape]["least_work"] = work
        return found

    @property
    def _outliers(self) -> bool:
        """Whether products have outlier columns: then neither end of the data is an upper bound."""
        return self._cells[0].quantization == "int8"

    def _simulator(self) -> _Simulator:
        return _Simulator(
            self._shape_tracer,
            self._traces,
            tuple(self._cards),
            self._request,
            self._varying(),
            self._least if self._outliers else None,
        )

    def _varying(self) -> SequenceLengths | None:
        """Return the sequence lengths if the lengths of batches vary, else None."""
        return self._sequence_lengths if self._cells[0].batches_vary else None

    def _prediction(self, cell: Cell, cards: tuple[CardPrediction, ...]) -> CellPrediction:
        shape = self._shapes[cell.cell_id]
        peak = self._traces.peak_bytes(shape)
        orders = _other_orders(self._traces, shape, self._varying(), self._cells[0].packing)
        low, high = min([peak, *(trace.peak_bytes for trace in orders)]), peak
        exact = self._varying() is None and self._least is None
        if self._least is not None:
            least = self._least.peak_bytes(shape)
            low, high = min(low, least), max(high, least) if self._outliers else high
        explained = compose(self._traces.at(shape)) if self._request.explain else None
        wanted = cell.cell_id in self._request.breakdown_of
        listed = cell.cell_id in self._request.allocations_of
        return CellPrediction(
            cell_id=cell.cell_id,
            source="traced" if shape in self._traces.traced else "fitted",
            tensors=PredictedBytes(
                value_bytes=peak,
                low_bytes=low,
                high_bytes=high,
                certainty="exact" if exact else "interval",
            ),
            cards=cards,
            composition=explained,
            managed_bytes=self._traces.managed_bytes(shape),
            smallest_rank_bytes=self._smallest(shape, peak),
            breakdown=breakdown(self._traces.at(shape)) if wanted else None,
            allocations=self._allocations(shape) if listed else None,
        )

    def _allocations(self, shape: Shape) -> PredictedAllocations:
        runtime = self._cards[0].runtime if self._cards else None
        return predicted_allocations(self._traces.at(shape), runtime)

    def _smallest(self, shape: Shape, peak: int) -> int | None:
        """Return the peak of the rank that needs least; None of a single process."""
        if self._cells[0].num_processes == 1:
            return None
        return peak if self._last is None else min(peak, self._last.peak_bytes(shape))

    def largest(self) -> list[LargestBatch]:
        """Return the largest batch that fits, for each length and card."""
        lengths = {cell.max_length: cell for cell in reversed(self._cells)}
        alike: dict[int, tuple[str, ...]] = {}
        for cell in self._cells:
            alike[cell.max_length] = (*alike.get(cell.max_length, ()), cell.cell_id)
        jobs = [
            (self._shapes[cell.cell_id][1], cell, card)
            for _, cell in sorted(lengths.items(), key=lambda pair: pair[0])
            for card in self._cards
            if self._traces.fitted(self._shapes[cell.cell_id][1]) is not None
        ]
        found: list[LargestBatch] = self._run(self._simulator().largest_batch, jobs)
        return [
            largest.model_copy(update={"cell_ids": alike[largest.max_length]}) for largest in found
        ]


@dataclasses.dataclass(frozen=True)
class _Simulator:
    """Simulates the shapes of a workload on cards. It is pickled for the process that simulates."""

    shape_tracer: ShapeTracer
    shape_traces: ShapeTraces
    cards: tuple[Card, ...]
    request: PredictRequest
    varying: SequenceLengths | None
    without_outliers: ShapeTraces | None = None

    def on_cards(self, shape: Shape) -> tuple[CardPrediction, ...]:
        """Return the prediction of a shape on every card."""
        traces = [
            self.shape_traces.at(shape),
            *_other_orders(self.shape_traces, shape, self.varying, self.shape_tracer.cell.packing),
            *([] if self.without_outliers is None else [self.without_outliers.at(shape)]),
        ]
        cards = [card.with_communicators(traces[0].communicators) for card in self.cards]
        return tuple(on_card(card, self._replays(traces, card).simulated()) for card in cards)

    def largest_batch(self, job: tuple[int, Cell, Card]) -> LargestBatch:
        """Return the largest batch of a length on a card, by bisection below the limit that tensors alone set.

        Reserved memory does not always grow with the batch; at the edges found, the next larger batch that
        was tried does not fit. A batch of one has events of its own, and is traced.
        """
        length, cell, card = job
        fitted = self.shape_traces.fitted(length)
        assert fitted is not None
        card = card.with_communicators(fitted.template.communicators)
        limit = card.capacity[1]
        top = last(lambda batch: fitted.peak_bytes(batch, length) <= limit, LARGEST_BATCH)

        @functools.cache  # the two searches overlap, and the result is needed once more
        def replays(batch: int) -> Replays:
            if batch == 1:
                return self._replays([self.shape_tracer.trace((1, length))], card)
            other = self.without_outliers and self.without_outliers.fitted(length)
            orders = _other_orders(self.shape_traces, (batch, length), self.varying, cell.packing)
            more = [other.at(batch, length)] if other else []
            return self._replays([fitted.at(batch, length), *orders, *more], card)

        possible = last_from_above(lambda batch: replays(batch).any_fits, top)
        certain = last_from_above(lambda batch: replays(batch).all_fit, possible)
        reserved = None
        if certain:
            reserved = on_card(card, replays(certain).simulated()).reserved
        return LargestBatch(
            cell_id=cell.cell_id,
            gpu=card.name,
            max_length=cell.max_length,
            certain=certain,
            possible=possible,
            reserved=reserved,
        )

    def _replays(self, traces: list[Trace], card: Card) -> Replays:
        return replays_of(
            traces,
            card.runtime,
            card.capacities,
            expandable_segments=self.request.expandable_segments,
        )


def _other_orders(
    shape_traces: ShapeTraces,
    shape: Shape,
    varying: SequenceLengths | None,
    packing: Packing,
) -> list[Trace]:
    """Return a shape's traces for the random orders of lengths; none if lengths do not vary.

    Texts that are joined and cut into rows of one length do not.
    """
    if varying is None:
        return []
    batch, length = shape
    orders: list[tuple[float, ...]] = []
    if packing == "none":
        orders += varying.orders(batch, length, STEPS)[1:]
    elif packing == "padding-free":
        orders += varying.orders_in_one_row(batch, length, STEPS)[1:]
    return shape_traces.in_orders(batch, orders)


def _joined(
    before: CellPrediction | None, new: CellPrediction, order: Mapping[str, int]
) -> CellPrediction:
    """Return one prediction from those on two groups of cards, with the cards in order."""
    if before is None:
        return new
    cards = sorted(before.cards + new.cards, key=lambda card: order[card.gpu])
    return before.model_copy(update={"cards": tuple(cards)})


def _refusal(cell: Cell) -> str | None:
    try:
        refuse_uncovered(cell)
    except PredictionError as error:
        return str(error)
    return None


def _notes(
    cells: Sequence[Cell], sequence_lengths: SequenceLengths, request: PredictRequest
) -> tuple[str, ...]:
    notes = []
    if not request.data_at_hand:
        classes = cells[0].data.task == "text-classification"
        assumed = "two classes, and padding in batches, are" if classes else "padding in batches is"
        notes.append(f"the data set could not be read: {assumed} assumed")
    if any(cell.batches_vary for cell in cells):
        notes.append(
            "batches without padding, or padded to their longest example, vary in length: intervals are over random"
            " orders of the lengths in the data"
            if sequence_lengths.lengths
            else "batches without padding, or padded to their longest example, vary in length, but the lengths are"
            " not known: figures are for batches of the maximum length"
        )
    if any(
        cell.attn_implementation in FLASH_ATTENTION_2 and has_padding(cell, sequence_lengths)
        for cell in cells
    ):
        notes.append(
            "flash attention removes padding, as much as the data has: tensors are between those of one token per"
            " example and those of all; figures of cards are for all, an upper bound"
        )
    if any(cell.data.keep_logits and Evaluation.of(cell).is_sampled for cell in cells):
        notes.append(
            "an evaluation that keeps its logits joins them anew after each batch, and only some of its batches are"
            " traced: tensors are those of the whole, reserved memory is a lower bound if the peak is in it"
        )
    if any(cell.quantization == "int8" for cell in cells):
        notes.append(
            "products with weights of 8 bits have outlier columns, which depend on the data: intervals are over"
            f" none and {MOST_OUTLIER_COLUMNS} in each product, the most that LLM.int8's paper found up to 13 B"
            " parameters; single figures are for the most"
        )
    if any(cell.num_processes > 1 for cell in cells):
        notes.append(SEVERAL_PROCESSES)
    if request.gpus and (ignored := ignored_variables()):
        notes.append(ignored)
    return tuple(notes)
