"""Scores: how far predictions are from published peaks, by file, task and recipe. Pure."""

from __future__ import annotations

import pandas as pd

# What a kind of file says of each row, for the table: `of` is `allocated` or `reserved`, `low` and `high` are the
# ends of the measured value in bytes (equal if it was printed in bytes; apart by the last digit if it was rounded),
# `failed` says whether the run died, and `group` names its task and recipe.
MEASURED = ("of", "low", "high", "failed", "group")


def error_table(predictions: pd.DataFrame, measured: pd.DataFrame, file: str) -> str:
    """Return the errors as Markdown: all rows of a file, then by group; below, why rows were not predicted.

    An error is the distance to the nearest value that rounds to the printed one, relative to it. Runs that failed
    are misjudged if they are predicted to fit, and the other way round; files do not always say which of them
    failed for another reason than memory.
    """
    kept = [name for name in predictions if name not in MEASURED]
    rows = pd.concat([predictions[kept], measured[list(MEASURED)]], axis=1)
    lines = [_line(f"{file}: all", rows)]
    lines += [_line(str(name), group) for name, group in rows.groupby("group", sort=True)]
    head = list(lines[0])
    table = [head, ["---", *["---:"] * (len(head) - 1)], *(list(line.values()) for line in lines)]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    reasons = predictions["not_predicted"].dropna().value_counts(sort=True)
    left_out = [f"- {count} rows: {reason}." for reason, count in reasons.items()]
    return "\n".join([text, "", *(["Not predicted:", "", *left_out] if left_out else [])]) + "\n"


def _line(name: str, group: pd.DataFrame) -> dict[str, str]:
    predicted = group[group["not_predicted"].isna()]
    known = predicted[predicted["failed"].notna()]
    misjudged = int((known["failed"].astype(bool) != (known["predicted_oom"] == 1)).sum())
    judged = predicted[predicted["low"].notna()]
    low, high = judged["low"].astype(float), judged["high"].astype(float)
    value, least, most = (_figure(judged, end) for end in ("", "low_", "high_"))
    distance = (low - value).clip(lower=0) + (value - high).clip(lower=0)
    inside = int(((least <= high) & (low <= most)).sum())
    error, width = (100 * bytes_ / ((low + high) / 2) for bytes_ in (distance, most - least))
    return {
        "rows": name,
        "predicted": f"{len(predicted)} of {len(group)}",
        "median error": _percent(error.median()),
        "worst": _percent(error.max()),
        "inside the interval": f"{inside} of {len(judged)}" if len(judged) else "",
        "median width": _percent(width.median()),
        "failure misjudged": f"{misjudged} of {len(known)}" if len(known) else "",
    }


def _figure(rows: pd.DataFrame, end: str) -> pd.Series[float]:
    """Return the predicted column of each row's own figure."""
    allocated, reserved = (
        rows[f"predicted_{name}_{end}bytes"].astype(float) for name in ("allocated", "reserved")
    )
    return allocated.where(rows["of"] == "allocated", reserved)


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f} %"
