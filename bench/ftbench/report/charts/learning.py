"""Learning: the score against training examples, every replicate a point, and the fitted law's band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ftbench.analysis.comparisons.contrast import MeanScore, mean_scores, points
from ftbench.analysis.fits.laws import LearningCurve
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.scores import ScoreKind
from ftbench.report.charts.curves import horizontal
from ftbench.report.charts.inputs import ChartInputs
from ftbench.report.charts.scales import NUMBER
from ftbench.report.charts.theme import CATEGORIES, finish
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from ftbench.report.elements.words import point_text

if TYPE_CHECKING:
    import altair as alt

LENGTH, BATCH, EXAMPLES = REQUIRED_AXES
CHOOSER = "Learning curve at"
_LINE_POINTS = 32


def learning(inputs: ChartInputs) -> Iterator[ReportFigure]:
    """Yield the learning curve, if a score was read at two sizes or more of one kind of cell."""
    groups = dict(_groups(inputs))
    if not groups:
        return
    values = inputs.finished[inputs.score.column].dropna()
    word = f"{inputs.score.word[:1].upper()}{inputs.score.word[1:]}"
    yield ReportFigure(
        name="learning-curve",
        title=f"{word} along training examples",
        caption=_caption(inputs, groups),
        alt=f"{word} along training examples; runs reach from {values.min():.3f} to {values.max():.3f}.",
        draw=lambda: _draw(groups, inputs.score.word),
        chooser=CHOOSER,
    )


_LAW = (
    "Small points are runs, one per seed; large ones their means, with 95 % intervals. The line is the"
    " law, its band the 95 % interval, drawn on to twice the examples; the dashed line is its limit."
)
_NO_LAW = "Points are runs, one per seed. No law is fitted; the line joins the means{bars}."
_SOME_LAWS = (
    " Cells that no law is fitted to have their runs, and a line that joins the means{bars}."
)
_BARS = ", whose bars are 95 % intervals, over seeds and evaluation examples"


def _caption(inputs: ChartInputs, groups: dict[str, list[Row]]) -> str:
    """Return a description of the chart: the law if there is one, else a line through the means."""
    lawful = [_has_law(rows) for rows in groups.values()]
    lawless = [row for rows in groups.values() if not _has_law(rows) for row in rows]
    bars = _BARS if any("low" in row for row in lawless) else ""
    if not any(lawful):
        return _NO_LAW.format(bars=bars)
    curves = [curve for curve in inputs.curves if isinstance(curve, LearningCurve)]
    some = "" if all(lawful) else _SOME_LAWS.format(bars=bars)
    return _LAW + some + evaluation_words(curves)


def _has_law(rows: Sequence[Row]) -> bool:
    return any(row["kind"] == "limit" for row in rows)


def evaluation_words(curves: Sequence[LearningCurve]) -> str:
    """Return how far the choice of evaluation examples may move a curve, which no interval of it has.

    A sentence with a space before it; empty if that is not known.
    """
    errors = [curve.evaluation_error for curve in curves if curve.evaluation_error is not None]
    if not errors:
        return ""
    return f" Other evaluation examples would move the whole curve by up to ±{max(errors):.3f}."


def _groups(inputs: ChartInputs) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of each set of cells that differ in training examples only; those with most sizes first."""
    table = inputs.finished.dropna(subset=[inputs.score.column])
    others = inputs.varying(EXAMPLES)
    means = mean_scores(points(inputs.table, inputs.axes), inputs.score.column)
    groups = table.groupby(others, sort=True) if others else [((), table)]
    found = []
    for key, cells in groups:
        fixed = dict(zip(others, key, strict=True))
        if cells[EXAMPLES].nunique() > 1:
            rows = [
                {"kind": "run", "x": int(row[EXAMPLES]), "y": round(row[inputs.score.column], 5)}
                | {"seed": str(row["seed"])}
                for row in cells.to_dict("records")
            ]
            curve = curve_of(inputs, fixed)
            places = cells.drop_duplicates(EXAMPLES)[list(inputs.axes)].itertuples(index=False)
            of_sizes = {
                place[list(inputs.axes).index(EXAMPLES)]: means[tuple(place)] for place in places
            }
            lines = _law(curve, rows) if curve else _means(of_sizes, inputs.score)
            found.append((point_text(fixed) or "all", [*rows, *lines]))
    yield from sorted(found, key=lambda one: -len({row["x"] for row in one[1]}))


def curve_of(inputs: ChartInputs, fixed: dict[str, object]) -> LearningCurve | None:
    """Return the fitted curve of the cells with these axis values; None if there is none."""
    for curve in inputs.curves:
        if isinstance(curve, LearningCurve) and all(
            str(fixed.get(name, value)) == str(value) for name, value in curve.fixed.items()
        ):
            return curve
    return None


def _means(means: Mapping[int, MeanScore], kind: ScoreKind) -> Iterator[Row]:
    """Yield a line through the means, and their intervals, as the front has them."""
    least, most = kind.bounds
    for size, mean in sorted(means.items()):
        at = {"x": int(size), "y": round(mean.value, 5)}
        yield {"kind": "law", **at}
        if (ends := mean.estimate.interval) is not None:
            low, high = max(ends.low, least), min(ends.high, most)
            yield {"kind": "mean", **at, "low": round(low, 5), "high": round(high, 5)}


def _law(curve: LearningCurve, runs: Sequence[Row]) -> Iterator[Row]:
    """Yield the means with their intervals, and the law's line, band and limit."""
    sizes = sorted({row["x"] for row in runs})
    for size, (said, seeds) in curve.points.items():
        yield {"kind": "mean", "x": size, "y": said.value, "low": said.low, "high": said.high} | {
            "seeds": seeds
        }
    low, high = math.log(sizes[0]), math.log(sizes[-1] * 2)
    for i in range(_LINE_POINTS):
        x = math.exp(low + (high - low) * i / (_LINE_POINTS - 1))
        said = curve.predict(x)
        place = {"x": float(f"{x:.5g}"), "beyond": x > sizes[-1] * 1.0001}
        ends = {"y": said.value, "low": said.low, "high": said.high}
        yield {"kind": "law"} | place | {name: round(y, 5) for name, y in ends.items()}
    yield {"kind": "limit", "x": sizes[0], "y": round(1 - curve.floor.value, 5)}


def _draw(groups: dict[str, list[Row]], score: str) -> Chart:
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN))
    sizes = sorted({row["x"] for rows in groups.values() for row in rows if row["kind"] == "run"})
    x = horizontal(sizes, EXAMPLES)
    y = alt.Y("y:Q", title=score, scale=alt.Scale(zero=False), axis=alt.Axis(format=NUMBER))
    low = alt.Y("low:Q", title=score, scale=alt.Scale(zero=False))
    fitted = any(map(_has_law, groups.values()))
    barred = any(row["kind"] == "mean" for rows in groups.values() for row in rows)
    tint = {"color": alt.value(CATEGORIES[0])}
    law = base.transform_filter("datum.kind === 'law'")
    band = law.transform_filter("isValid(datum.low)").mark_area(opacity=0.18)
    line = law.mark_line(strokeWidth=2)
    limit = base.transform_filter("datum.kind === 'limit'").mark_rule(
        strokeDash=[4, 4], opacity=0.6, color="currentColor"
    )
    return finish(
        alt.layer(
            *([band.encode(x=x, y=low, y2="high:Q", **tint), limit.encode(y=y)] if fitted else []),
            line.encode(x=x, y=y, **tint),
            *_points(base, x, y, score, fitted=fitted, barred=barred),
        ),
        groups,
    )


def _points(
    base: alt.Chart, x: alt.X, y: alt.Y, score: str, *, fitted: bool, barred: bool
) -> list[alt.Chart]:
    """Return the marks of runs, means and the means' intervals."""
    import altair as alt

    said = alt.Tooltip("y:Q", title=score, format=".3f")
    examples = alt.Tooltip("x:Q", title="training examples", format=",")
    runs = base.transform_filter("datum.kind === 'run'")
    means = base.transform_filter("datum.kind === 'mean'")
    single = runs.mark_point(filled=True, size=26, opacity=0.65, color=CATEGORIES[0]).encode(
        x=x, y=y, tooltip=[examples, said, alt.Tooltip("seed:N", title="seed")]
    )
    if not barred:
        return [single]
    low = alt.Y("low:Q", title=score, scale=alt.Scale(zero=False))
    rules = means.mark_rule(strokeWidth=1.5, color=CATEGORIES[1 if fitted else 0])
    bars = rules.encode(x=x, y=low, y2="high:Q")
    if not fitted:
        return [bars, single]
    return [
        bars,
        single,
        means.mark_point(filled=True, size=80, color=CATEGORIES[1]).encode(
            x=x, y=y, tooltip=[examples, said, alt.Tooltip("seeds:Q", title="seeds")]
        ),
    ]
