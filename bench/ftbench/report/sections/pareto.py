"""What to buy: the front of the score against each cost, the next doubling, full beside other methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.guessing import GUESSING
from ftbench.analysis.comparisons.methods import (
    MethodComparison,
    MethodPair,
    method_comparison,
)
from ftbench.analysis.comparisons.pareto import (
    Doubling,
    cheapest_for,
    money,
    next_doublings,
    score_levels,
    standings,
)
from ftbench.analysis.tables.cells_table import headline_memory, headline_score
from ftbench.base.units import counted, format_value
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.tables import figure_texts, memory_word
from ftbench.report.elements.words import (
    NO_INTERVAL,
    axis_word,
    cost_word,
    difference_text,
    point_text,
    ratio_text,
    verdict_text,
)

HEADING = "What to buy"
_NOTE = (
    "In what to buy, a cell is on the front if its {score} is above that of every cheaper cell by more than noise;"
    " its lead is over the cheaper cell that is nearest. Intervals hold the true value in 95 of 100 cases: of"
    " {score} from the spread over seeds and the standard error over {examples}, of costs from"
    " run to run. A lead whose interval holds 0 is not distinguishable from noise: the cheaper cell may be as good."
    " A cell whose {score} is within noise of guessing is compared with no other."
)
_ONE_SEED = (
    "Every cell has one seed, so how far another seed's score would lie is not known and is in no interval: a"
    " difference that is distinguishable may still be the seed's. Several seeds (run.replicates) would show it."
)
_MANY_AXES = 4  # so many axes and fewer have a column each


def buying_section(
    table: pd.DataFrame,
    axes: Sequence[str],
    *,
    usd_per_hour: float | None = None,
) -> Section | None:
    """Return the section on what to buy; None if the table of cells says nothing on it.

    With `usd_per_hour` times have their money beside them: its front is that of time.
    """
    score = headline_score(table).word
    costs = ("total_s", headline_memory(table))
    ranked = {cost: standings(table, cost, axes) for cost in costs}
    ranked = {cost: cells for cost, cells in ranked.items() if len(cells) > 1}
    steps = next_doublings(table, axes, "total_s")
    methods = method_comparison(table, axes)
    if not ranked and not steps and not methods:
        return None
    shown = [axis for axis in axes if table[axis].nunique(dropna=False) > 1]
    paragraphs = [
        *(_front_words(cost, cells, score, usd_per_hour) for cost, cells in ranked.items()),
        *_step_words(steps, score),
        *(_method_words(one, score) for one in methods),
        *([_ONE_SEED] if ranked and _single(ranked) else []),
    ]
    tables = [
        *(
            front_table(cost, cells, shown, score, usd_per_hour)
            for cost, cells in ranked.items()
            if _shown(cells).sum() > 1
        ),
        *cheapest_tables(ranked, shown, score, usd_per_hour),
        *_doubling_tables(table, axes, steps, score),
        *(method_table(one, score) for one in methods),
    ]
    return Section(HEADING, tuple(paragraphs), tuple(tables))


def _single(ranked: dict[str, pd.DataFrame]) -> bool:
    """Return whether no cell has a second seed."""
    return all((cells["seeds"] <= 1).all() for cells in ranked.values())


def buying_note(score: str, eval_size: int) -> str:
    """Return a note on how to read the section on what to buy."""
    return _NOTE.format(score=score, examples=counted(eval_size, "evaluation example"))


# The front


def _front_words(cost: str, cells: pd.DataFrame, score: str, price: float | None) -> str:
    """Return the front's ends in a sentence, and how many cells are not distinguishable from cheaper ones."""
    front = cells[cells["standing"] == "front"]
    guessing = int((cells["standing"] == GUESSING).sum())
    if front.empty:
        return f"By {cost_word(cost)}, no cell is worth its cost: no {score} is distinguishable from guessing."
    untold = int((cells["standing"] == "not distinguishable").sum())
    first, last = front.iloc[0], front.iloc[-1]
    costs = _costs(cost, (first["cost"], last["cost"]), price)
    ends = f"{score} {first['score']:.3f} for {costs[0]}"
    if len(front) > 1:
        ends += f" to {last['score']:.3f} for {costs[1]}"
    more = f"; {untold} more {_are(untold)} within noise of a cheaper one" if untold else ""
    more += f"; {guessing} {_are(guessing)} no better than guessing" if guessing else ""
    return (
        f"By {cost_word(cost)}, {len(front)} of {counted(len(cells), 'cell')} {_are(len(front))} worth the cost,"
        f" from {ends}{more}."
        if len(front) > 1
        else f"By {cost_word(cost)}, no cell is known to be worth more than the cheapest that learns: {ends}{more}."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _costs(cost: str, values: Sequence[float], price: float | None) -> list[str]:
    """Return values of a cost that stand together: dashes if they are absent, times with their money."""
    texts = figure_texts(cost, values)
    if price is None or cost != "total_s":
        return texts
    return [
        text if pd.isna(value) else f"{text} ({_usd(money(value, price))})"
        for text, value in zip(texts, values, strict=True)
    ]


def _usd(usd: float) -> str:
    return f"{usd:.2f} USD" if usd >= 0.1 else f"{usd:.2g} USD"


def front_table(
    cost: str, cells: pd.DataFrame, axes: Sequence[str], score: str, price: float | None = None
) -> Table:
    """Return the cells on the front and those not distinguishable from it, the cheapest first."""
    rows = []
    shown = cells[_shown(cells)]
    costs = _costs(cost, list(shown["cost"]), price)
    for row, cost_text in zip(shown.to_dict("records"), costs, strict=True):
        given = _cell_texts(row, axes)
        seeds = f"{row['seeds']:.0f}"
        figures = (_score(row), cost_text, _lead(row))
        rows.append((*given, seeds, *figures, _standing(row)))
    heads = _cell_heads(axes)
    return Table(
        title=f"The front of {score} against {cost_word(cost)}",
        columns=(*heads, "seeds", score, cost_word(cost), f"lead in {score}", "standing"),
        rows=tuple(rows),
        numeric=(*(len(axes) <= _MANY_AXES for _ in heads), True, True, True, True, False),
        leading=(score, cost_word(cost)),
    )


def _shown(cells: pd.DataFrame) -> pd.Series[bool]:
    return ~cells["standing"].isin(["dominated", GUESSING])


def _cell_heads(axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(axis_word, axes)) if len(axes) <= _MANY_AXES else ("cell",)


def _cell_texts(row: dict[Any, Any], axes: Sequence[str]) -> tuple[str, ...]:
    if len(axes) <= _MANY_AXES:
        return tuple(format_value(row[axis]) for axis in axes)
    return (point_text({axis: row[axis] for axis in axes}),)


def _score(row: dict[Any, Any]) -> str:
    if pd.isna(row["score_low"]):
        return f"{row['score']:.3f}"
    return f"{row['score']:.3f} ({row['score_low']:.3f} to {row['score_high']:.3f})"


def _lead(row: dict[Any, Any]) -> str:
    if pd.isna(row["lead"]):
        return ABSENT
    if pd.isna(row["lead_low"]):
        return f"{row['lead']:+.3f}"
    return f"{row['lead']:+.3f} ({row['lead_low']:+.3f} to {row['lead_high']:+.3f})"


def _standing(row: dict[Any, Any]) -> str:
    if row["standing"] == "front":
        return "front" if pd.isna(row["lead"]) else "front, lead distinguishable"
    ahead = row["lead"] > 0
    return "not distinguishable" if ahead else "behind, by no more than noise"


# The cheapest for a score


def cheapest_tables(
    ranked: dict[str, pd.DataFrame], axes: Sequence[str], score: str, price: float | None = None
) -> Iterator[Table]:
    """Yield the cheapest cell for each level of the score, by each cost; nothing if no round one is reached."""
    if not ranked:
        return
    levels = score_levels(next(iter(ranked.values())))
    found = {cost: cheapest_for(cells, levels) for cost, cells in ranked.items()}
    if not levels:
        return
    texts = {cost: _costs(cost, list(cells["cost"]), price) for cost, cells in found.items()}
    rows = []
    for number, level in enumerate(levels):
        row = [f"{level:.2f}"]
        for cost, cells in found.items():
            one = cells.iloc[number].to_dict()
            sure = "" if one["sure"] else " (perhaps)"
            place = point_text({axis: one[axis] for axis in axes}) + sure
            row += [texts[cost][number], ABSENT if pd.isna(one["cost"]) else place]
        rows.append(tuple(row))
    columns = [part for cost in found for part in (f"least {cost_word(cost)}", "its cell")]
    yield Table(
        title=f"The cheapest cell for a given {score} (perhaps: the interval of its {score} goes below)",
        columns=(f"{score} at least", *columns),
        rows=tuple(rows),
        numeric=(True, *(True, False) * len(found)),
    )


# The next doubling


def _step_words(steps: Sequence[Doubling], score: str) -> Iterator[str]:
    told = [step for step in steps if step.gain.verdict == "more"]
    for step in told[:1]:
        yield (
            f"The next doubling of {axis_word(step.axis)} (measured from {format_value(step.start)} to"
            f" {format_value(step.end)} at {point_text(step.fixed)}) {_worth(len(told), len(steps), score)}:"
            f" {difference_text(step.gain)} for {ratio_text(step.cost_ratio)} the time."
        )
    if steps and not told:
        tried = "; ".join(
            f"{axis_word(step.axis)} from {format_value(step.start)} to {format_value(step.end)}"
            f" at {point_text(step.fixed)}"
            for step in steps
        )
        yield (
            f"Of the next doublings that were measured ({tried}), none has a gain in {score} that is"
            " distinguishable from none."
        )


def _worth(told: int, steps: int, score: str) -> str:
    """Return the worth of the best step whose gain is distinguishable; one whose gain is not may bring more."""
    if steps == 1:
        return "is worth this"
    if told == 1:
        return f"is the only one whose gain in {score} is distinguishable from none"
    return f"buys most {score} for its time, of the {told} whose gain is distinguishable from none"


def _doubling_tables(
    table: pd.DataFrame, axes: Sequence[str], steps: Sequence[Doubling], score: str
) -> Iterator[Table]:
    if steps:
        memory = headline_memory(table)
        other = {
            step.axis: step.cost_ratio
            for one in steps
            for step in next_doublings(table, axes, memory, at={**one.fixed, one.axis: one.start})
            if step.axis == one.axis
        }
        yield Table(
            title="The next doubling of each axis, gains that are distinguishable first",
            columns=(
                "axis",
                "from",
                "to",
                "at",
                f"{score} per doubling",
                "total time per doubling",
                f"{memory_word(table)} per doubling",
                "gain",
            ),
            rows=tuple(
                (
                    axis_word(step.axis),
                    format_value(step.start),
                    format_value(step.end),
                    point_text(step.fixed),
                    difference_text(step.gain),
                    ratio_text(step.cost_ratio),
                    ratio_text(other.get(step.axis)),
                    verdict_text(step.gain, more="distinguishable", less="a loss"),
                )
                for step in steps
            ),
            numeric=(False, True, True, False, True, True, True, False),
        )


# Full fine-tuning beside another method


_AVERAGES = {"mean": "geometric mean", "median": "median"}


def _method_words(one: MethodComparison, score: str) -> str:
    """Return the cost of full fine-tuning over another method, and its gain, in a sentence."""
    several = len(one.pairs) > 1
    costs = ", ".join(
        f"{ratio_text(found)} the {cost_word(cost)}{'' if found.interval else f' ({NO_INTERVAL})'}"
        for cost, found in one.ratios.items()
    )
    brings = ""
    if one.gain is not None:
        said = verdict_text(one.gain, more="better", less="worse")
        mean = " on average" if several else ""
        brings = f"; in {score} {difference_text(one.gain)}{mean} ({said})"
    if one.guessing:
        pairs = "their" if not several else f"{one.guessing} of the pairs, a"
        brings += f"; in {pairs} {score} is no better than guessing, and not compared"
    over = f"the {_AVERAGES[one.averaged]} of their ratios"
    pairs = f"{len(one.pairs)} pairs of cells ({over})" if several else "one pair of cells"
    return f"Full fine-tuning costs, over {_method(one)} in {pairs}: {costs}{brings}."


def _method(one: MethodComparison) -> str:
    word = "the head alone" if one.method == "head" else one.method
    return f"{word} ({point_text(one.own)})" if one.own else word


# What the last row of a table of pairs has.
_ALL = {"mean": "all: mean", "median": "all: median, of the score the mean"}


def method_table(one: MethodComparison, score: str) -> Table:
    """Return full divided by (in score: less) another method, one row per pair of cells."""
    varying = [
        name for name in one.pairs[0].fixed if len({repr(p.fixed[name]) for p in one.pairs}) > 1
    ]
    rated = any(pair.full_rate is not None for pair in one.pairs)
    rows = [_pair_row(pair, varying, list(one.ratios), rated) for pair in one.pairs]
    if len(rows) > 1:
        blank = (ABSENT,) * (len(varying) + 2 * rated - 1)
        over = (
            *(ratio_text(found) for found in one.ratios.values()),
            difference_text(one.gain),
        )
        rows.append((_ALL[one.averaged], *blank, *over))
    rates = ("learning rate, full", f"learning rate, {one.method}") if rated else ()
    heads = (*map(axis_word, varying), *rates)
    columns = (*(cost_word(cost) for cost in one.ratios), score)
    return Table(
        title=f"Full fine-tuning over {_method(one)}: ratios of costs, difference of {score}",
        columns=(*heads, *columns),
        rows=tuple(rows),
        numeric=(True,) * (len(heads) + len(columns)),
    )


def _pair_row(
    pair: MethodPair, varying: Sequence[str], costs: Sequence[str], rated: bool
) -> tuple[str, ...]:
    rates = (format_value(pair.full_rate), format_value(pair.other_rate)) if rated else ()
    ratios = (ratio_text(pair.ratios.get(cost)) for cost in costs)
    fixed = (format_value(pair.fixed[name]) for name in varying)
    return (*fixed, *rates, *ratios, difference_text(pair.gain))
