"""Several processes: how well they share the work, and what each rank needs and waits for."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ftbench.analysis.comparisons.parallel import ScalingPoint, ScalingSeries, scaling_series
from ftbench.analysis.tables.ranks_table import PREDICTED, ranks_table
from ftbench.base.units import counted, format_ratio, format_seconds, format_value
from ftbench.records.figures import READINGS
from ftbench.records.record import Record
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.tables import figure_texts
from ftbench.report.elements.words import FIGURE_WORDS, axis_word

HEADING = "Several processes"
_NOTE = (
    "A step takes as long as on its slowest rank. Parallel efficiency is the examples per second of a full step,"
    " per {unit}, divided by those of the fewest processes: with weak scaling each process keeps its batch, with"
    " strong scaling the processes share one."
)
_WAITING = (
    "Collectives last from the first all-reduce of a backward pass to the end of the last one; of this, a rank"
    " waits from the end of its own backward pass on, also for a slower rank (DistributedDataParallel times both)."
)
_TENSORS = "peak_cpu_tensors_bytes"
_FOLD_FROM = 12


def parallel_section(records: Sequence[Record]) -> Section:
    """Return the tables of weak and strong scaling, and that of the ranks; empty without several processes."""
    ranks = ranks_table(records)
    if ranks.empty:
        return Section(HEADING)
    series = scaling_series(records)
    unit = "thread" if (ranks["device"] == "cpu").all() else "card"
    paragraphs = [_NOTE.format(unit=unit), *map(_found, series)] if series else []
    if ranks["collectives_s"].notna().any():
        paragraphs.append(_WAITING)
    if (compared := _compared(ranks)) is not None:
        paragraphs.append(compared)
    return Section(
        HEADING, tuple(paragraphs), (*(_table(one, unit) for one in series), _of_ranks(ranks))
    )


def _found(series: ScalingSeries) -> str:
    """Return the efficiency of the most processes, in a sentence."""
    most = series.points[-1]
    ends = _ends(most)
    interval = f" (95 % interval over seeds: {ends})" if ends else ""
    return (
        f"{_title(series)}: {most.processes} processes have a parallel efficiency of"
        f" {most.efficiency:.0%}{interval}."
    )


def _title(series: ScalingSeries) -> str:
    whose = "of each process" if series.kind == "weak" else "of all processes"
    length = format_value(series.fixed["max_length"])
    return (
        f"{series.kind.capitalize()} scaling with {series.strategy}, length {length},"
        f" {counted(series.batch, 'example')} per step {whose}"
    )


def _table(series: ScalingSeries, unit: str) -> Table:
    return Table(
        title=_title(series),
        columns=(
            "processes",
            f"{unit}s",
            "batch",
            "step (median)",
            "samples/s",
            "speedup",
            "efficiency",
        ),
        rows=tuple(_row(point) for point in series.points),
        numeric=(True,) * 7,
    )


def _row(point: ScalingPoint) -> tuple[str, ...]:
    ends = _ends(point)
    return (
        str(point.processes),
        str(point.units),
        str(point.batch),
        format_seconds(point.step_s),
        f"{point.examples_per_s:.1f}",
        format_ratio(point.speedup),
        f"{point.efficiency:.0%}" + (f" ({ends})" if ends else ""),
    )


def _ends(point: ScalingPoint) -> str:
    """Return the ends of the efficiency's interval; empty without one."""
    if point.low is None or point.high is None:
        return ""
    return f"{point.low:.0%} to {point.high:.0%}"


def _of_ranks(ranks: pd.DataFrame) -> Table:
    """Return one row per rank of each run: its steps, its waiting, and the memory that was read."""
    readings = [one.reading for one in READINGS if ranks[one.reading].notna().any()]
    seconds = [
        name
        for name in ("step_median_s", "collectives_s", "exposed_s")
        if ranks[name].notna().any()
    ]
    predicted = [PREDICTED] if ranks[PREDICTED].notna().any() else []
    texts = {name: figure_texts(name, ranks[name]) for name in readings}
    texts |= {name: [_seconds(value) for value in ranks[name]] for name in seconds}
    texts |= {name: figure_texts(_TENSORS, ranks[name]) for name in predicted}
    heads = {
        "step_median_s": "step (median)",
        "collectives_s": "collectives",
        "exposed_s": "waiting",
        PREDICTED: "predicted tensors",
    }
    shown = ("cell_id", "replicate", "rank", "device", "threads")
    names = [*seconds, *readings, *predicted]
    rows = zip(
        *([format_value(value) for value in ranks[name]] for name in shown),
        *(texts[name] for name in names),
        strict=True,
    )
    return Table(
        title="Each rank",
        columns=(
            "cell",
            *map(axis_word, shown[1:]),
            *(heads.get(name) or FIGURE_WORDS[name] for name in names),
        ),
        rows=tuple(rows),
        numeric=(False, True, True, False, *(True,) * (1 + len(names))),
        folded=len(ranks) > _FOLD_FROM,
    )


def _seconds(value: float) -> str:
    return ABSENT if pd.isna(value) else format_seconds(value)


def _compared(ranks: pd.DataFrame) -> str | None:
    """Return how far the measured peaks of the CPU's tensors are from the predicted ones, at most; None without."""
    both = ranks[ranks[PREDICTED].notna() & ranks[_TENSORS].notna()]
    if both.empty:
        return None
    apart = int((both[_TENSORS] - both[PREDICTED]).abs().max())
    return (
        f"The predicted peaks of the CPU's tensors are at most {counted(apart, 'byte')} from the measured ones,"
        f" over {counted(len(both), 'rank')}."
    )
