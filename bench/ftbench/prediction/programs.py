"""A worker process that predicts a program: a `ProgramRequest` in, `Predictions` out, both as JSON data.

The user's file is run here, in a process of its own, and each set of arguments is traced in a process that is
forked from this one: whatever a loop leaves behind (globals, caches) does not reach the next trace.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from ftbench.base.errors import FtbenchError, PredictionError, ProgramError, WorkerError
from ftbench.plan.gpus import Gpu
from ftbench.plan.programs import ProgramCell
from ftbench.prediction.breakdown.allocations import predicted_allocations
from ftbench.prediction.breakdown.composition import compose
from ftbench.prediction.breakdown.growth import growth
from ftbench.prediction.breakdown.parts import breakdown
from ftbench.prediction.largest_value import largest_values
from ftbench.prediction.simulate.cards import Card, card_of, on_card
from ftbench.prediction.simulate.ignored_variables import ignored_variables
from ftbench.prediction.simulate.nccl import SEVERAL_PROCESSES
from ftbench.prediction.simulate.older_torch import version_note, version_of_workspaces
from ftbench.prediction.simulate.simulation import Simulated, simulate_all
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.bitsandbytes_package import managed_notes
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.program_file import Factory, load_factory, user_errors
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.steps import trace_steps
from ftbench.prediction.trace.tracer import Step, Target
from ftbench.records.messages import Progress
from ftbench.records.predicted_allocations import PredictedAllocations
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    LargestValue,
    PredictedBytes,
    Predictions,
    ProgramRequest,
    Refused,
    RefusedCards,
)

Job = TypeVar("Job")
Result = TypeVar("Result")
# The prediction of a cell, None if there is none on any card; and the cards without one.
Outcome = tuple[CellPrediction | None, list[RefusedCards]]


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Predictions` for a `ProgramRequest`, both as JSON data; raises ProgramError."""
    request = ProgramRequest.model_validate(body)
    emit(Progress(phase=f"loading {request.program.file}"))
    factory = load_factory(request.program)
    for cell in request.cells:
        factory.require(cell.values)
    found = predict_program(request, factory, lambda phase: emit(Progress(phase=phase)))
    return found.model_dump(mode="json")


def predict_program(
    request: ProgramRequest, factory: Factory, on_progress: Callable[[str], None]
) -> Predictions:
    """Return the predictions of a program's cells; those that prediction does not cover are refused.

    Raises ProgramError if the user's code raises an error.
    """

    def announced() -> Iterator[ProgramCell]:
        for cell in request.cells:
            on_progress(f"tracing {cell.name}")
            yield cell

    def predicted(cell: ProgramCell) -> Outcome:
        return _predicted(cell, factory, request)

    if len(request.cells) == 1:  # this process is its own already
        found = list(map(predicted, announced()))
    else:
        found = list(_each_apart(predicted, announced(), request.processes))
    cells = tuple(cell for cell, _ in found if cell is not None)
    return Predictions(
        cells=cells,
        refused=tuple(
            Refused(cell_id=refused[0].cell_id, reason=refused[0].text)
            for cell, refused in found
            if cell is None
        ),
        refused_cards=tuple(one for cell, refused in found if cell is not None for one in refused),
        notes=(*_notes(request), *managed_notes(cells), *version_note(request.assume_torch)),
        largest_values=tuple(_largest(request, factory, on_progress)),
        versions=patches.library_versions(),
    )


def _largest(
    request: ProgramRequest, factory: Factory, on_progress: Callable[[str], None]
) -> Iterator[LargestValue]:
    """Yield the largest values of the argument that the request names; each trace has a process of its own."""
    name = request.largest
    if name is None:
        return
    workspaces = version_of_workspaces(request.assume_torch)
    for cell in _without(request.cells, name):
        for target, gpus in _targets(request):

            def trace(value: int, cell: ProgramCell = cell, target: Target = target) -> Trace:
                on_progress(f"tracing {cell.name} with {name}={value}")
                own = {**cell.values, name: value}
                factory.require(own)
                first_rank = _ranks(cell)[0]
                return _Forked(
                    lambda _: _traced(factory, cell, own, target, first_rank), None
                ).result()

            yield from largest_values(
                cell.cell_id,
                name,
                [card_of(gpu, workspaces) for gpu in gpus],
                trace,
                lambda traced, card: _simulated(traced, card, request),
            )


def _without(cells: Sequence[ProgramCell], name: str) -> list[ProgramCell]:
    """Return the first cell of each combination of the other arguments."""
    first: dict[str, ProgramCell] = {}
    for cell in cells:
        others = {key: value for key, value in cell.values.items() if key != name}
        first.setdefault(json.dumps([others, cell.num_processes]), cell)
    return list(first.values())


def _notes(request: ProgramRequest) -> Iterator[str]:
    if len({gpu.compute_capability for gpu in request.gpus}) > 1:
        yield (
            f"tensors: as on {request.gpus[0].name}; another card may choose other kernels, which keep other"
            " tensors"
        )
    if any((cell.num_processes or 1) > 1 for cell in request.cells):
        yield SEVERAL_PROCESSES
    if request.gpus and (ignored := ignored_variables()):
        yield ignored


def _predicted(cell: ProgramCell, factory: Factory, request: ProgramRequest) -> Outcome:
    """Return the prediction of one cell. The figures without a card are those on the first card."""
    cards: dict[str, CardPrediction] = {}
    refused: list[RefusedCards] = []
    first: Trace | None = None
    smallest = 0
    for target, gpus in _targets(request):
        try:
            of_ranks = [
                _traced(factory, cell, cell.values, target, ranks) for ranks in _ranks(cell)
            ]
        except PredictionError as error:
            names = tuple(gpu.name for gpu in gpus)
            refused.append(RefusedCards(cell_id=cell.cell_id, gpus=names, reason=str(error)))
            continue
        traced = max(of_ranks, key=lambda one: one.peak_bytes)
        if first is None:
            first, smallest = traced, min(one.peak_bytes for one in of_ranks)
        for gpu in gpus:
            card = card_of(gpu, version_of_workspaces(request.assume_torch))
            cards[card.name] = _on_card(traced, card, request)
    if first is None:
        return None, refused
    shown = tuple(cards[gpu.name] for gpu in request.gpus if gpu.name in cards)
    found = _prediction(cell, first, shown, request)
    if cell.num_processes is not None:
        found = found.model_copy(update={"smallest_rank_bytes": smallest})
    return found, refused


def _prediction(
    cell: ProgramCell, first: Trace, cards: tuple[CardPrediction, ...], request: ProgramRequest
) -> CellPrediction:
    peak = first.peak_bytes
    return CellPrediction(
        cell_id=cell.cell_id,
        source="traced",
        tensors=PredictedBytes(
            value_bytes=peak, low_bytes=peak, high_bytes=peak, certainty="exact"
        ),
        cards=cards,
        composition=compose(first) if request.explain else None,
        breakdown=breakdown(first) if cell.cell_id in request.breakdown_of else None,
        live_blocks=first.peak_blocks,
        growth=growth(first),
        managed_bytes=first.managed_bytes,
        allocations=_allocations(first, request)
        if cell.cell_id in request.allocations_of
        else None,
    )


def _allocations(first: Trace, request: ProgramRequest) -> PredictedAllocations:
    workspaces = version_of_workspaces(request.assume_torch)
    cards = [card_of(gpu, workspaces) for gpu in request.gpus]
    return predicted_allocations(first, cards[0].runtime if cards else None)


def _ranks(cell: ProgramCell) -> tuple[Ranks | None, ...]:
    """Return the ranks to trace: the first and the last, which has the smallest shards; None on one GPU."""
    if cell.num_processes is None:
        return (None,)
    ends = sorted({0, cell.num_processes - 1})
    return tuple(Ranks(cell.num_processes, rank=rank) for rank in ends)


def _traced(
    factory: Factory,
    cell: ProgramCell,
    values: Mapping[str, Any],
    target: Target,
    ranks: Ranks | None,
) -> Trace:
    def with_mesh(device: torch.device, mesh: Any) -> Step:
        return factory.step(device, values, mesh)

    def alone(device: torch.device) -> Step:
        return factory.step(device, values)

    made = with_mesh if ranks is not None and factory.takes_mesh else alone
    with user_errors(cell.name):
        return trace_steps(made, target=target, steps=cell.steps, ranks=ranks)


def _targets(request: ProgramRequest) -> Iterator[tuple[Target, list[Gpu]]]:
    """Yield the devices to trace, one per compute capability: the user's code may ask for it, as kernels do."""
    capabilities: dict[tuple[int, int], list[Gpu]] = {}
    for gpu in request.gpus:
        capabilities.setdefault(gpu.compute_capability, []).append(gpu)
    of_all = Target(attention=request.attention, torch_version=request.assume_torch)
    if not capabilities:
        yield of_all, []
    for capability, gpus in capabilities.items():
        yield dataclasses.replace(of_all, compute_capability=capability), gpus


def _on_card(traced: Trace, card: Card, request: ProgramRequest) -> CardPrediction:
    return on_card(card.with_communicators(traced.communicators), _simulated(traced, card, request))


def _simulated(traced: Trace, card: Card, request: ProgramRequest) -> Simulated:
    card = card.with_communicators(traced.communicators)
    return simulate_all(
        [traced], card.runtime, card.capacities, expandable_segments=request.expandable_segments
    )


def _each_apart(
    function: Callable[[Job], Result], jobs: Iterator[Job], processes: int
) -> Iterator[Result]:
    """Yield the result for each job in order, each from a process of its own.

    Raises the error that a job raised, and ProgramError if its process ended without a result.
    """
    running = deque(_Forked(function, job) for job in itertools.islice(jobs, processes))
    try:
        while running:
            yield running.popleft().result()
            running.extend(_Forked(function, job) for job in itertools.islice(jobs, 1))
    finally:  # after an error, nobody waits for the others
        for forked in running:
            forked.stop()


class _Forked:
    """A job in a process that is forked from this one, with all that is loaded in it."""

    def __init__(self, function: Callable[[Any], Any], job: Any) -> None:
        context = get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_send, args=(function, job, sender))
        self._process.start()
        sender.close()

    def result(self) -> Any:
        """Return the job's result, or raise its error."""
        try:
            result = self._receiver.recv()
        except EOFError:
            self._process.join()
            raise ProgramError(
                "the process of a trace ended without an answer",
                got=f"exit code {self._process.exitcode}",
            ) from None
        self._process.join()
        if isinstance(result, FtbenchError):
            raise result
        return result

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _send(function: Callable[[Any], Any], job: Any, sender: Connection) -> None:
    """Run a job, and send its result or its error to the parent process."""
    # OpenMP's threads do not survive a fork: if the user's file used them, the next use would wait for ever.
    torch.set_num_threads(1)
    try:
        result = function(job)
    except FtbenchError as error:
        result = error
    except Exception:
        result = WorkerError("a trace failed", got=traceback.format_exc())
    sender.send(result)
