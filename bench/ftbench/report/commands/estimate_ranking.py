"""Several devices side by side: one table, the best first, and a sentence on those that cannot be told from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftbench.base.text import joined
from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate
from ftbench.estimation.ranking import By, Cause, Ranking, figure_of
from ftbench.report.commands.estimate import WORDS, figure_text
from ftbench.report.commands.prediction import VERDICT_WORDS
from ftbench.report.elements.table import ABSENT, Table

_BEST: dict[By, str] = {"cost_usd": "Cheapest", "time_s": "Fastest"}
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


def ranking_lines(ranking: Ranking, score: EstimatedFigure) -> Iterator[str]:
    """Yield the best device, those that are not distinguishable from it and why, and where prices are from.

    The score, which no device changes, is among them if it is known.
    """
    best = ranking.best
    if best is None:
        yield _no_best(ranking)
        return
    of = WORDS[ranking.by]
    yield f"{_BEST[ranking.by]}: {best.device}, {of} {_with_interval(best, ranking.by)}."
    if ranking.tied:
        why = "; ".join(_CAUSES[cause] for cause in ranking.causes)
        yield (
            f"Not distinguishable from it by {of}: {joined(ranking.tied)}. Their intervals reach that of"
            f" {best.device}: {why}."
        )
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
        return f"No best device: nothing is known of the run's time on {joined(timeless)}."
    return "No device: the run fits on none of them."


def _unpriced_lines(ranking: Ranking) -> Iterator[str]:
    """Yield which devices a price would move, if others have one."""
    unpriced = [one.device for one in ranking.usable if one.price is None]
    if unpriced and len(unpriced) < len(ranking.usable):
        yield (
            f"Without a price, and so not compared by money: {joined(unpriced)}."
            f" --usd-per-hour {unpriced[0]}=USD gives one."
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
    }
