"""A row of the twelve cells: a small loop runs on the card, and its allocator is held against the prediction.

The loop and its prediction run at the same time, in a worker each; only the first one sees the card.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from importlib.resources import files
from pathlib import Path

from ftbench.base.errors import PredictionError
from ftbench.execute.engines.base import Engine, Outcome, Work
from ftbench.execute.outcome import require_answer
from ftbench.execute.prediction_worker import forecast
from ftbench.plan.programs import Program, ProgramCell, ProgramGrid, program_grid
from ftbench.records.prediction import (
    TRACED_STEPS,
    CardPrediction,
    CellPrediction,
    PredictedBytes,
    ProgramRequest,
)
from ftbench.records.selfcheck import (
    CheckedFigure,
    Measured,
    MeasureRequest,
    RowAnswer,
)
from ftbench.selfcheck.rows import Row, Value
from ftbench.selfcheck.setting import Setting, gpu_of_card, is_known
from ftbench.snapshot.compare import compare
from ftbench.snapshot.result import Comparison, Difference
from ftbench.snapshot.snapshot_file import read_snapshot

MEASURE = "ftbench.worker.selfcheck.measure"
SNAPSHOT, PREDICTION, MEASURED = "snapshot.pickle", "prediction.json", "measured.json"
_LIMIT_S = 50.0  # less than a row's, whose process is to tell what happened


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return whether each peak is as predicted, and whether each allocation is."""
    arguments = dict(row.arguments)
    snapshot = setting.folder / SNAPSHOT
    request = MeasureRequest(arguments=arguments, steps=TRACED_STEPS, snapshot=str(snapshot))
    with measuring(request, setting, "measure.log") as future:
        predicted = predicted_cell(arguments, setting)
    (setting.folder / PREDICTION).write_text(predicted.model_dump_json())
    measured = require_answer(future.result(), "measurement", Measured, None)
    (setting.folder / MEASURED).write_text(measured.model_dump_json())
    found = compare(read_snapshot(snapshot), 0, predicted)
    figures = peaks(measured, predicted.cards[0])
    reason = _reason(figures, found)
    return RowAnswer(
        status="failed" if reason else "ok",
        reason=reason,
        figures=(*figures, *_agreement(found)),
        notes=notes(measured, setting),
        send=(SNAPSHOT, PREDICTION, MEASURED),
    )


@contextlib.contextmanager
def measuring(
    request: MeasureRequest, setting: Setting, log: str, limit_s: float = _LIMIT_S
) -> Iterator[Future[Outcome]]:
    """Start a worker on the card; the future of its outcome is waited for when the body ends."""
    engine: Engine = setting.engine()
    work = Work(MEASURE, request.model_dump_json(), setting.folder / log, limit_s)
    future = engine.submit(work, lambda _: None)
    try:
        yield future
        future.result()
    finally:
        engine.cancel()


def grid_of(arguments: dict[str, Value]) -> ProgramGrid:
    """Return the loop with these arguments as a program of one cell."""
    given = [f"{name}={value!r}" for name, value in arguments.items()]
    return program_grid(program("make_step"), given)


def program(factory: str) -> Program:
    """Return a factory of the self-check's loops as a program."""
    file = Path(str(files("ftbench.worker.selfcheck") / "programs.py"))
    return Program(file=str(file), factory=factory)


def predicted_cell(arguments: dict[str, Value], setting: Setting) -> CellPrediction:
    """Return the prediction of a loop on the setting's card, with its allocations; raises PredictionError."""
    cells: tuple[ProgramCell, ...] = grid_of(arguments).cells
    request = ProgramRequest(
        program=cells[0].program,
        cells=cells,
        gpus=(gpu_of_card(setting.card),),
        expandable_segments=setting.expandable_segments,
        allocations_of=(cells[0].cell_id,),
    )
    found = forecast(request, setting.predictor(), log_file=setting.folder / "predict.log")
    if found.refused:
        raise PredictionError(found.refused[0].reason)
    return found.cells[0]


def peaks(measured: Measured, predicted: CardPrediction) -> tuple[CheckedFigure, ...]:
    """Return the measured peaks beside the predicted ones; each agrees if it is within the interval."""
    return (
        _figure("requested", measured.requested_bytes, predicted.requested),
        _figure("allocated", measured.allocated_bytes, predicted.allocated),
        _figure("reserved", measured.reserved_bytes, predicted.reserved),
        _figure("process", measured.process_bytes, predicted.process),
    )


def _figure(name: str, measured: int | None, predicted: PredictedBytes) -> CheckedFigure:
    agrees = None if measured is None else predicted.low_bytes <= measured <= predicted.high_bytes
    return CheckedFigure(
        name=name, unit="byte", measured=measured, predicted=predicted, agrees=agrees
    )


def _agreement(found: Comparison) -> tuple[CheckedFigure, ...]:
    how = found.agreement
    return (
        CheckedFigure(name="allocations", unit="count", measured=how.recorded),
        CheckedFigure(
            name="as predicted",
            unit="count",
            measured=how.equal,
            agrees=found.agrees,
        ),
    )


def _reason(figures: tuple[CheckedFigure, ...], found: Comparison) -> str:
    """Return what differs in one sentence, the first allocation by its line; empty if nothing does."""
    off = [one.name for one in figures if one.agrees is False]
    parts = [f"{', '.join(off)} outside of the predicted interval"] if off else []
    if found.differences:
        parts.append(first_difference(found))
    elif not found.agrees:
        parts.append("the allocations do not follow the predicted order")
    return "; ".join(parts)


def first_difference(found: Comparison) -> str:
    """Return the first allocation that differs: its number, what differs, its bytes and its line."""
    first: Difference = min(found.differences, key=lambda one: one.first)
    part = first.part
    where = first.frame.source or (part.source if part is not None else "")
    of = f" of {part.role} in {part.module or 'the loop'}" if part is not None else ""
    return (
        f"allocation {first.first} differs ({first.kind}){of}: {first.nbytes:,} B, "
        f"predicted {first.expected_bytes:,} B, at {where or 'no line of Python'}"
    )


def notes(measured: Measured, setting: Setting) -> tuple[str, ...]:
    """Return what qualifies the figures of a row."""
    found = []
    if measured.process_absent is not None:
        found.append(measured.process_absent)
    if measured.retries:
        found.append(f"{measured.retries} allocations had to release cached blocks first")
    if not is_known(setting.card):
        found.append("the card is not in the catalogue: its workspaces and context are estimated")
    return tuple(found)
