"""The row of the largest batch: predicted under a limit of the allocator, then run, and one more."""

from __future__ import annotations

from ftbench.base.errors import PredictionError
from ftbench.base.units import MIB
from ftbench.execute.outcome import require_answer
from ftbench.execute.prediction_worker import forecast
from ftbench.plan.gpus import Gpu
from ftbench.records.prediction import TRACED_STEPS, ProgramRequest
from ftbench.records.selfcheck import CheckedFigure, Measured, MeasureRequest, RowAnswer
from ftbench.selfcheck.cells import grid_of, measuring, notes
from ftbench.selfcheck.rows import Row, Value
from ftbench.selfcheck.setting import Setting, gpu_of_card

# Odd, so that the limit falls between two multiples of a segment's 2 MiB: torch's own product of share and total
# may be a few bytes off.
_LEAST_MIB = 769
ARGUMENT = "batch"
ARGUMENTS: dict[str, Value] = {"length": 256}
_LIMIT_S = 100.0  # of a run
_CERTAIN, _POSSIBLE = "certain", "possible"


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return whether the batch that is predicted to fit runs, and the next larger one does not."""
    certain, possible = predicted_largest(setting)
    runs = {batch: _run(batch, setting) for batch in sorted({certain, possible + 1})}
    largest = _bisected(certain, possible, runs, setting)
    fits, fails = not runs[certain].out_of_memory, runs[possible + 1].out_of_memory
    reasons = [] if fits else [f"batch {certain} was predicted to fit, and went out of memory"]
    reasons += [] if fails else [f"batch {possible + 1} was predicted not to fit, and ran"]
    return RowAnswer(
        status="failed" if reasons else "ok",
        reason="; ".join(reasons),
        figures=(
            CheckedFigure(name="predicted to fit", unit="count", measured=certain, agrees=fits),
            CheckedFigure(name="one that may fit", unit="count", measured=possible, agrees=fails),
            CheckedFigure(name="largest that ran", unit="count", measured=largest),
            CheckedFigure(
                name="reserved at it", unit="byte", measured=runs[largest].reserved_bytes
            ),
        ),
        notes=notes(runs[largest], setting),
    )


def predicted_largest(setting: Setting) -> tuple[int, int]:
    """Return the largest batch that fits under every assumption, and under some; raises PredictionError."""
    cells = grid_of(ARGUMENTS).cells
    gpu = gpu_of_card(setting.card)
    request = ProgramRequest(
        program=cells[0].program,
        cells=cells,
        gpus=(with_room(gpu, _CERTAIN), with_room(gpu, _POSSIBLE)),
        largest=ARGUMENT,
        expandable_segments=setting.expandable_segments,
    )
    found = forecast(request, setting.predictor(), log_file=setting.folder / "predict.log")
    values = {one.gpu: one for one in found.largest_values}
    if len(values) < 2:
        raise PredictionError("no largest batch was predicted", got=str(found.refused))
    return values[_CERTAIN].certain, values[_POSSIBLE].possible


def with_room(gpu: Gpu, end: str) -> Gpu:
    """Return a card one end of whose room, its memory less the context, is the limit itself."""
    context = gpu.context_high_bytes if end == _CERTAIN else gpu.context_low_bytes
    total = limit_bytes(gpu) + context
    return gpu.model_copy(update={"name": end, "memory_low_bytes": total, "memory_bytes": total})


def limit_bytes(gpu: Gpu) -> int:
    """Return the limit on a card: more than both ends of its context differ by, since `Gpu` has room at either."""
    between = (gpu.context_high_bytes - gpu.context_low_bytes) // MIB
    return max(_LEAST_MIB, (between + 2) | 1) * MIB


def _run(batch: int, setting: Setting) -> Measured:
    request = MeasureRequest(
        arguments={**ARGUMENTS, ARGUMENT: batch},
        steps=TRACED_STEPS,
        limit_bytes=limit_bytes(gpu_of_card(setting.card)),
    )
    with measuring(request, setting, f"batch-{batch}.log", _LIMIT_S) as future:
        pass
    return require_answer(future.result(), "measurement", Measured, None)


def _bisected(certain: int, possible: int, runs: dict[int, Measured], setting: Setting) -> int:
    """Return the largest batch that ran, of those between the two predictions; 0 if none of them did."""
    low, high = certain, possible + 1
    if runs[low].out_of_memory:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        runs[middle] = _run(middle, setting)
        low, high = (low, middle) if runs[middle].out_of_memory else (middle, high)
    return low
