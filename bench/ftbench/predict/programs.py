"""A worker process that predicts a program: a `ProgramRequest` in, `Predictions` out, both as JSON data.

The user's file is run here, in a process of its own, and each set of arguments is traced in a process that is
forked from this one: whatever a loop leaves behind (globals, caches) does not reach the next trace.
"""

from __future__ import annotations

import itertools
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from ftbench.base.errors import FtbenchError, PredictionError, ProgramError, WorkerError
from ftbench.plan.gpus import Gpu
from ftbench.plan.programs import ProgramCell
from ftbench.predict.breakdown.composition import compose
from ftbench.predict.breakdown.growth import growth
from ftbench.predict.breakdown.parts import breakdown
from ftbench.predict.simulate.cards import Card, card_of, on_card
from ftbench.predict.simulate.ignored_variables import ignored_variables
from ftbench.predict.simulate.nccl import SEVERAL_PROCESSES
from ftbench.predict.simulate.simulation import simulate_all
from ftbench.predict.trace import patches
from ftbench.predict.trace.bitsandbytes_package import managed_notes
from ftbench.predict.trace.events import Trace
from ftbench.predict.trace.program_file import Factory, load_factory, user_errors
from ftbench.predict.trace.ranks import Ranks
from ftbench.predict.trace.steps import trace_steps
from ftbench.predict.trace.tracer import Step, Target
from ftbench.records.messages import Progress
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    PredictedBytes,
    Predictions,
    ProgramRequest,
    Refused,
)

Job = TypeVar("Job")
Result = TypeVar("Result")


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

    def predicted(cell: ProgramCell) -> CellPrediction | Refused:
        try:
            return _predicted(cell, factory, request)
        except PredictionError as error:
            return Refused(cell_id=cell.cell_id, reason=str(error))

    if len(request.cells) == 1:  # this process is its own already
        found = list(map(predicted, announced()))
    else:
        found = list(_each_apart(predicted, announced(), request.processes))
    cells = tuple(one for one in found if isinstance(one, CellPrediction))
    return Predictions(
        cells=cells,
        refused=tuple(one for one in found if isinstance(one, Refused)),
        notes=(*_notes(request), *managed_notes(cells)),
        versions=patches.library_versions(),
    )


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


def _predicted(cell: ProgramCell, factory: Factory, request: ProgramRequest) -> CellPrediction:
    """Return the prediction of one cell. The figures without a card are those on the first card."""
    cards: dict[str, CardPrediction] = {}
    first: Trace | None = None
    smallest = 0
    for target, gpus in _targets(request):
        with user_errors(cell.name):
            of_ranks = [_traced(cell, factory, target, ranks) for ranks in _ranks(cell)]
        traced = max(of_ranks, key=lambda one: one.peak_bytes)
        if first is None:
            first, smallest = traced, min(one.peak_bytes for one in of_ranks)
        for card in map(card_of, gpus):
            of_process = card.with_communicators(traced.communicators)
            cards[card.name] = _on_card(traced, of_process, request)
    assert first is not None
    peak = first.peak_bytes
    return CellPrediction(
        cell_id=cell.cell_id,
        source="traced",
        tensors=PredictedBytes(
            value_bytes=peak, low_bytes=peak, high_bytes=peak, certainty="exact"
        ),
        cards=tuple(cards[gpu.name] for gpu in request.gpus),
        composition=compose(first) if request.explain else None,
        breakdown=breakdown(first) if cell.cell_id in request.breakdown_of else None,
        live_blocks=first.peak_blocks,
        growth=growth(first),
        managed_bytes=first.managed_bytes,
        smallest_rank_bytes=smallest if cell.num_processes is not None else None,
    )


def _ranks(cell: ProgramCell) -> tuple[Ranks | None, ...]:
    """Return the ranks to trace: the first and the last, which has the smallest shards; None on one GPU."""
    if cell.num_processes is None:
        return (None,)
    ends = sorted({0, cell.num_processes - 1})
    return tuple(Ranks(cell.num_processes, rank=rank) for rank in ends)


def _traced(cell: ProgramCell, factory: Factory, target: Target, ranks: Ranks | None) -> Trace:
    def with_mesh(device: torch.device, mesh: Any) -> Step:
        return factory.step(device, cell.values, mesh)

    def alone(device: torch.device) -> Step:
        return factory.step(device, cell.values)

    made = with_mesh if ranks is not None and factory.takes_mesh else alone
    return trace_steps(made, target=target, steps=cell.steps, ranks=ranks)


def _targets(request: ProgramRequest) -> Iterator[tuple[Target, list[Gpu]]]:
    """Yield the devices to trace, one per compute capability: the user's code may ask for it, as kernels do."""
    capabilities: dict[tuple[int, int], list[Gpu]] = {}
    for gpu in request.gpus:
        capabilities.setdefault(gpu.compute_capability, []).append(gpu)
    if not capabilities:
        yield Target(attention=request.attention), []
    for capability, gpus in capabilities.items():
        yield Target(compute_capability=capability, attention=request.attention), gpus


def _on_card(traced: Trace, card: Card, request: ProgramRequest) -> CardPrediction:
    simulated = simulate_all(
        [traced], card.runtime, card.capacities, expandable_segments=request.expandable_segments
    )
    return on_card(card, simulated)


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
