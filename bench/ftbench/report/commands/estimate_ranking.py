"""The decision of an estimate in a sentence; and several devices side by side in one table, the best first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from ftbench.base.text import joined
from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate, Estimate
from ftbench.estimation.ranking import By, Cause, Ranking, figure_of
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.report.commands.estimate import WORDS, figure_text
from ftbench.report.commands.prediction import VERDICT_WORDS
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import point_text
from ftbench.report.sections.decision import decision_of

_BEST: dict[By, str] = {"cost_usd": "the cheapest", "time_s": "the fastest"}
_CAUSES: dict[Cause, str] = {
    "host-bound": "the host that starts kernels takes most of each step, and no card makes it faster",
    "too small": "start and checkpoints take most of the run, which is too small to tell cards apart",
    "uncertain": "a time that was not measured is as uncertain as its interval is wide",
}


def ranking_table(ranking: Ranking) -> Table:
    """Return one row per device: whether the run fits, the largest batch, time and money with their intervals."""
    return Table(
        title="Devices, by money" if ranking.by == "cost_usd" else "Devices, by time",
        columns=("device", "fits", "largest batch", "time", "USD per hour", "money"),
        rows=tuple(_row(device) for device in ranking.devices),
        numeric=(False, False, True, True, True, True),
        optional=("largest batch",),
    )


def _row(device: DeviceEstimate) -> tuple[str, ...]:
    price = device.price
    return (
        device.device,
        VERDICT_WORDS.get(device.verdict, device.verdict) if device.verdict else ABSENT,
        f"{device.largest.certain:,}" if device.largest else ABSENT,
        _with_interval(device, "time_s"),
        f"{price.usd_per_hour:.2f}" if price else ABSENT,
        _with_interval(device, "cost_usd"),
    )


def _with_interval(device: DeviceEstimate, name: str) -> str:
    found = figure_of(device, name)
    if found is None:
        return ABSENT
    value, low, high = (figure_text(name, one) for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def decision_lines(found: Estimate, ranking: Ranking) -> Iterator[str]:
    """Yield the decision: which device for which run, and why, with those that are not distinguishable from it.

    After it the decision that the measured runs of the workload allow, if they do.
    """
    cell = found.target.cell
    run = point_text({name: cell.facets[name] for name in (*REQUIRED_AXES, "method")})
    best = ranking.best
    yield _no_best(ranking) if best is None else f"{_taken(best, ranking, run)}."
    measured = decision_of(found.measured)
    if measured:
        yield f"By the runs that were measured: {measured[0][:1].lower()}{measured[0][1:]}"


def _taken(best: DeviceEstimate, ranking: Ranking, run: str) -> str:
    """Return that a device is to be taken, or that a run fits on the only one, with its time and money."""
    costs = [
        f"{WORDS[name]} {_with_interval(best, name)}"
        for name in dict.fromkeys((ranking.by, "time_s"))
        if figure_of(best, name) is not None
    ]
    of = f"for {run}: {' and '.join(costs)}"
    doubt = (
        ", if it fits, which is too close to call" if best.verdict == "too close to call" else ""
    )
    if len(ranking.devices) == 1:
        return f"Take {best.device}{doubt}, {of}"
    first = _BEST[ranking.by] + (" of those that it fits on" if ranking.perhaps else "")
    parts = [f"Take {best.device}{doubt}, {first} {of}"]
    if ranking.tied:
        why = "; ".join(_CAUSES[cause] for cause in ranking.causes)
        parts.append(
            f"not distinguishable from it by {WORDS[ranking.by]}: {joined(ranking.tied)} ({why})"
        )
    if ranking.perhaps:
        parts.append(
            f"{joined(ranking.perhaps)} would be better, but whether it fits there is too close to call"
        )
    return "; ".join(parts)


def ranking_lines(ranking: Ranking, score: EstimatedFigure) -> Iterator[str]:
    """Yield the score, which no device changes, the devices without a price, and where prices are from."""
    if ranking.best is None:
        return
    yield from _unpriced_lines(ranking)
    if score.value is not None:
        value, low, high = (
            figure_text(score.name, n) for n in (score.value, score.low, score.high)
        )
        yield f"On each of them: {WORDS.get(score.name, score.name)} {value} ({low} to {high})."
    yield from _price_lines(ranking)


def _no_best(ranking: Ranking) -> str:
    """Return why no device is the best."""
    timeless = [one.device for one in ranking.usable if figure_of(one, ranking.by) is None]
    if timeless:
        return f"No decision: nothing is known of the run's time on {joined(timeless)}."
    if not ranking.devices:
        return "No decision: there is no device to decide on."
    return f"No device: the run does not fit on {joined(one.device for one in ranking.devices)}."


def _unpriced_lines(ranking: Ranking) -> Iterator[str]:
    """Yield which devices a price would move, if others have one."""
    unpriced = [one.device for one in ranking.usable if one.price is None]
    if unpriced and len(unpriced) < len(ranking.usable):
        yield (
            f"Without a price, and so not compared by money: {joined(unpriced)}."
            f" --usd-per-hour {shlex.quote(unpriced[0])}=USD gives one."
        )


def _price_lines(ranking: Ranking) -> Iterator[str]:
    listed = [one.price.listed for one in ranking.devices if one.price and one.price.listed]
    if listed:
        dates = sorted(price.date for price in listed)
        span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        yield (
            f"Prices that were not given are list prices of one provider each, read {span}: others ask several"
            " times as much or as little. `ftbench gpus --json` has their sources."
        )


def ranking_json(ranking: Ranking) -> dict[str, Any]:
    """Return the order of the devices as JSON data; `best` is null if there is none, as in `Ranking`."""
    return {
        "by": ranking.by,
        "order": [one.device for one in ranking.devices],
        "best": ranking.best.device if ranking.best else None,
        "not_distinguishable": list(ranking.tied),
        "causes": list(ranking.causes),
        "perhaps_better": list(ranking.perhaps),
    }
