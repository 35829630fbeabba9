"""The rows of two cards: each process's peaks beside the prediction of a rank."""

from __future__ import annotations

from ftbench.base.errors import PredictionError
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.outcome import require_answer
from ftbench.execute.prediction_worker import forecast
from ftbench.plan.programs import program_grid
from ftbench.records.prediction import TRACED_STEPS, CardPrediction, ProgramRequest
from ftbench.records.selfcheck import (
    CheckedFigure,
    RanksMeasured,
    RanksRequest,
    RowAnswer,
)
from ftbench.selfcheck.cells import peaks, program
from ftbench.selfcheck.rows import Row
from ftbench.selfcheck.setting import Setting, gpu_of_card

RUN_RANKS = "ftbench.worker.selfcheck.ranks"
RANKS = 2
FACTORIES = {"ddp": "replicated", "fsdp2": "sharded"}
_LIMIT_S = 50.0


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return whether the first rank's peaks are as predicted; of shards, the other one may have fewer bytes."""
    strategy = str(dict(row.arguments)["strategy"])
    predicted = predicted_rank(strategy, setting)
    request = RanksRequest.model_validate(
        {
            "strategy": strategy,
            "device": "cuda",
            "uuids": tuple(card.uuid for card in setting.machine.cards[:RANKS]),
            "folder": str(setting.folder),
            "steps": TRACED_STEPS,
        }
    )
    (setting.folder / "store").unlink(missing_ok=True)  # of an earlier check: its ranks are gone
    outcome = LocalEngine("spawn", {}).run(
        RUN_RANKS,
        request.model_dump_json(),
        log_file=setting.folder / "ranks.log",
        timeout_s=_LIMIT_S,
        on_progress=lambda _: None,
    )
    return judged(require_answer(outcome, "training", RanksMeasured, None), predicted)


def judged(found: RanksMeasured, predicted: CardPrediction) -> RowAnswer:
    """Return the row of what the ranks measured."""
    first, *others = found.ranks
    figures = peaks(first, predicted)
    off = [one.name for one in figures if one.agrees is False]
    return RowAnswer(
        status="failed" if off else "ok",
        reason=f"{', '.join(off)} outside of the predicted interval" if off else "",
        figures=(
            *figures,
            *(
                CheckedFigure(name=f"allocated, rank {n}", unit="byte", measured=o.allocated_bytes)
                for n, o in enumerate(others, 1)
            ),
        ),
    )


def predicted_rank(strategy: str, setting: Setting) -> CardPrediction:
    """Return the prediction of the rank that needs most; raises PredictionError."""
    grid = program_grid(program(FACTORIES[strategy]), (), None, (RANKS,))
    request = ProgramRequest(
        program=grid.program,
        cells=grid.cells,
        gpus=(gpu_of_card(setting.card),),
        expandable_segments=setting.expandable_segments,
    )
    found = forecast(request, setting.predictor(), log_file=setting.folder / "predict.log")
    if found.refused:
        raise PredictionError(found.refused[0].reason)
    return found.cells[0].cards[0]
