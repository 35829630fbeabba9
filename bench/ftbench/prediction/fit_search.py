"""A worker process that searches: a `FitRequest` in, a `FitAnswer` out, both as JSON data.

Variants are tried in their order, which is that of their cost, and the first that fits is the answer: nothing that
is dearer is traced. Each is tried at a batch of one; only if that fits at the profile's batch size, which is
preferred among those that train the same model on as many GPUs.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.variants import Variant, is_of_the_model
from ftbench.records.fit_search import FitAnswer, FitRequest, Judged, Neighbour
from ftbench.records.messages import Progress
from ftbench.records.prediction import Predictions, PredictRequest, Refused
from ftbench.worker.process.peft_alone import import_peft_alone

BATCH = "per_device_train_batch_size"
_NO_LIMIT = 1 << 50  # bytes of a card that nothing fills

# Returns predictions of the cells of a request.
Predict = Callable[[PredictRequest], Predictions]


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `FitAnswer` for a `FitRequest`, both as JSON data."""
    gc.disable()
    request = FitRequest.model_validate(body)
    import_peft_alone()
    from ftbench.prediction.main import lengths_of  # imports torch and transformers
    from ftbench.prediction.predict_cells import Alike, predict

    cells = [variant.cell for variant in request.variants]
    first = request.predictions_of(*cells, gpus=(), largest=False)
    first, sequence_lengths = lengths_of(first, emit)
    alike: Alike = {}

    def predicted(asked: PredictRequest) -> Predictions:
        asked = asked.model_copy(update={"data_at_hand": first.data_at_hand})
        return predict(
            asked.cells,
            asked.gpus,
            sequence_lengths=sequence_lengths,
            request=asked,
            alike=alike,
            on_progress=lambda phase: emit(Progress(phase=phase)),
        )

    answer = search(request, predicted).model_dump(mode="json")
    gc.freeze()
    return answer


def search(request: FitRequest, predict: Predict) -> FitAnswer:
    """Return the first variant that fits, at the largest batch that does, and its cheaper neighbours."""
    return _Search(request, predict).answer()


class _Search:
    """A search: what was judged, and what was refused."""

    def __init__(self, request: FitRequest, predict: Predict) -> None:
        self._request = request
        self._predict = predict
        self._judged: dict[Cell, Judged | None] = {}
        self._refused: dict[str, str] = {}
        self._tried: set[tuple[tuple[str, Any], ...]] = set()
        self._notes: dict[str, None] = {}
        self._versions: tuple[tuple[str, str], ...] = ()

    def answer(self) -> FitAnswer:
        found = self._first()
        largest = None
        if found is not None:
            variant, batch = found
            batch, largest = self._largest(variant, batch)
            at_best = self._judge(variant, batch)
            assert at_best is not None
            if (
                at_best.verdict != "fits"
            ):  # a smaller batch may need more: then the one that was tried
                at_best, largest = self._judge(variant, found[1]), None
            neighbours = tuple(self._neighbours(variant, at_best)) if at_best else ()
        else:
            at_best, neighbours = None, tuple(self._nearest())
        return FitAnswer(
            found=at_best,
            largest_possible=largest,
            neighbours=neighbours,
            tried=len(self._tried),
            variants=len(self._request.variants),
            refused=tuple(Refused(cell_id=k, reason=v) for k, v in self._refused.items()),
            notes=tuple(self._notes),
            versions=self._versions,
        )

    def _first(self) -> tuple[Variant, int] | None:
        """Return the cheapest variant that fits, and the batch at which it was tried; None if none does."""
        for _, same in itertools.groupby(self._request.variants, lambda variant: variant.rung):
            able: tuple[Variant, int] | None = None  # the first at a batch of one
            for variant in same:
                if not self._fits(variant, 1):
                    continue
                own = variant.cell.per_device_train_batch_size
                if self._fits(variant, own):
                    return variant, own
                able = able or (variant, 1)
            if able is not None:
                return able
        return None

    def _fits(self, variant: Variant, batch: int) -> bool:
        judged = self._judge(variant, batch)
        return judged is not None and judged.verdict == "fits"

    def _judge(self, variant: Variant, batch: int) -> Judged | None:
        """Return a variant at a batch size on the card; None if it cannot be predicted."""
        cell = _at(variant.cell, batch)
        if cell not in self._judged:
            self._tried.add(variant.values)
            card, twin = self._request.gpu, _without_limit(self._request.gpu)
            asked = self._request.predictions_of(cell, gpus=(card, twin), largest=False)
            predictions = self._ask(asked)
            self._judged[cell] = _judged(variant, cell, predictions)
        return self._judged[cell]

    def _ask(self, asked: PredictRequest) -> Predictions:
        predictions = self._predict(asked)
        self._refused |= {one.cell_id: one.reason for one in predictions.refused}
        self._notes |= dict.fromkeys(predictions.notes)
        self._versions = predictions.versions
        return predictions

    def _largest(self, variant: Variant, fits: int) -> tuple[int, int]:
        """Return the largest batch that certainly fits, at least one that is known to, and one that may fit.

        No batch has more examples than there are.
        """
        asked = self._request.predictions_of(
            _at(variant.cell, fits), gpus=(self._request.gpu,), largest=True
        )
        found = self._ask(asked).largest
        certain = max([fits, *(one.certain for one in found)])
        possible = max([certain, *(one.possible for one in found)])
        most = max(variant.cell.train_size, fits)
        return min(certain, most), min(possible, most)

    def _neighbours(self, variant: Variant, found: Judged) -> Iterator[Neighbour]:
        """Yield the configurations that are cheaper than the answer by one setting, at the answer's batch size."""
        batch = found.cell.per_device_train_batch_size
        for name, other in _cheaper(variant, self._request.variants):
            judged = self._judge(other, batch)
            if judged is not None:
                yield Neighbour(setting=name, judged=judged)
        if batch < variant.cell.train_size:
            larger = self._judge(variant, batch + 1)
            if larger is not None:
                yield Neighbour(setting=BATCH, judged=larger)

    def _nearest(self) -> Iterator[Neighbour]:
        """Yield the configuration that was tried and that misses the card by least."""
        tried = [judged for judged in self._judged.values() if judged is not None]
        if tried:
            nearest = min(tried, key=lambda judged: judged.missing_bytes)
            yield Neighbour(setting="", judged=nearest)


def _at(cell: Cell, batch: int) -> Cell:
    own = cell.per_device_train_batch_size == batch
    return cell if own else cell.with_shape(batch, cell.max_length)


def _without_limit(gpu: Gpu) -> Gpu:
    """Return a card that differs in its memory only, of which there is always enough."""
    return gpu.model_copy(
        update={
            "name": f"{gpu.name} without a limit",
            "memory_low_bytes": _NO_LIMIT,
            "memory_bytes": _NO_LIMIT,
        }
    )


def _judged(variant: Variant, cell: Cell, predictions: Predictions) -> Judged | None:
    prediction = predictions.of(cell.cell_id)
    if prediction is None:
        return None
    card, twin = prediction.cards
    fits = card.verdict == "fits"
    return Judged(
        cell=cell,
        values=variant.values,
        departures=variant.departures,
        tensors=prediction.tensors,
        card=card,
        needs=twin.reserved,
        missing_bytes=0 if fits else twin.reserved.high_bytes - card.capacity_low_bytes,
    )


def _cheaper(variant: Variant, variants: Sequence[Variant]) -> Iterator[tuple[str, Variant]]:
    """Yield the nearest cheaper variant in each setting, the others being equal; `variants` are in order of cost.

    In a setting of the trained model, that is the one with the profile's own value.
    """
    own = dict(variant.values)
    before = list(variants[: variants.index(variant)])
    for name in own:
        alike = [
            other
            for other in before
            if _differing(own, dict(other.values)) == {name}
            and not (is_of_the_model(name) and name in other.departures)
        ]
        if alike:
            yield name, alike[-1]


def _differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the settings in which two variants differ; one process has no strategy to differ in."""
    return {name for name in one.keys() & other.keys() if one[name] != other[name]}
