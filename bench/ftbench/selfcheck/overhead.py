"""The row of the overhead: how much longer a step takes under our meters than in a bare Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ftbench.execute.outcome import require_answer
from ftbench.records.selfcheck import CheckedFigure, Overhead, OverheadRequest, RowAnswer
from ftbench.selfcheck.rows import Row
from ftbench.selfcheck.setting import Setting

TIME_STEPS = "ftbench.worker.selfcheck.overhead"
ROUNDS, STEPS = 3, 24
WARM_UP = 4  # steps of each round that are left out
# Single rounds differ by some per cent on a card that does nothing else: it fails if every round is above this.
LIMIT = 1.05
_LIMIT_S = 110.0


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return the ratio of median step times, with those of the single rounds as its spread."""
    request = OverheadRequest(folder=str(setting.folder), rounds=ROUNDS, steps=STEPS)
    outcome = setting.engine().run(
        TIME_STEPS,
        request.model_dump_json(),
        log_file=setting.folder / "steps.log",
        timeout_s=_LIMIT_S,
        on_progress=lambda _: None,
    )
    found = require_answer(outcome, "timing", Overhead, None)
    return judged(found)


def judged(found: Overhead) -> RowAnswer:
    """Return the row of these step times."""
    rounds = [_ratio([m], [b]) for m, b in zip(found.metered_s, found.bare_s, strict=True)]
    slower = min(rounds) > LIMIT
    return RowAnswer(
        status="failed" if slower else "ok",
        reason=f"in every round a step took more than {LIMIT - 1:.0%} longer" if slower else "",
        figures=(
            CheckedFigure(
                name="metered / bare",
                unit="ratio",
                measured=_ratio(found.metered_s, found.bare_s),
                agrees=not slower,
            ),
            CheckedFigure(name="least of a round", unit="ratio", measured=min(rounds)),
            CheckedFigure(name="most of a round", unit="ratio", measured=max(rounds)),
            CheckedFigure(name="bare step", unit="s", measured=_median(found.bare_s)),
        ),
    )


def _ratio(metered: Sequence[Sequence[float]], bare: Sequence[Sequence[float]]) -> float:
    return _median(metered) / _median(bare)


def _median(rounds: Sequence[Sequence[float]]) -> float:
    return median(second for one in rounds for second in one[WARM_UP:])
