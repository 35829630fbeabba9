"""Table: how far predictions are from published peaks, by task and recipe. Pure."""

from __future__ import annotations

import pandas as pd

MEASURED = ("peak_allocated_bytes", "outcome")


def error_table(predictions: pd.DataFrame, file: str) -> str:
    """Return the errors of allocated memory as Markdown: all rows of a file, then by task and recipe.

    An error is |predicted - measured| / measured. Runs that failed are misjudged if they are predicted to fit, and
    the other way round; the file does not say which of them failed for another reason than memory.
    """
    rows = predictions.assign(
        measured=pd.to_numeric(predictions["peak_allocated_bytes"], errors="coerce")
    )
    lines = [_line(f"{file}: all", rows)]
    for (method, recipe), group in rows.groupby(["method", "framework_config"], sort=True):
        lines.append(_line(f"causal-lm, {method}, {recipe}", group))
    head = list(lines[0])
    table = [head, ["---", *["---:"] * (len(head) - 1)], *(list(line.values()) for line in lines)]
    reasons = predictions["not_predicted"].dropna().value_counts(sort=True)
    left_out = [f"- {count} rows: {reason}." for reason, count in reasons.items()]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return "\n".join([text, "", "Not predicted:", "", *left_out]) + "\n"


def _line(name: str, group: pd.DataFrame) -> dict[str, str]:
    predicted = group[group["not_predicted"].isna()]
    failed = predicted["outcome"] != "ok"
    misjudged = int((failed != (predicted["predicted_oom"] == 1)).sum())
    judged = predicted[predicted["measured"].notna()]
    measured = judged["measured"]
    value, low, high = (
        judged[f"predicted_allocated_{end}bytes"].astype(float) for end in ("", "low_", "high_")
    )
    error = 100 * (value - measured).abs() / measured
    inside = int(((low <= measured) & (measured <= high)).sum())
    return {
        "rows": name,
        "predicted": f"{len(predicted)} of {len(group)}",
        "median error": _percent(error.median()),
        "worst": _percent(error.max()),
        "inside the interval": f"{inside} of {len(judged)}" if len(judged) else "",
        "median width": _percent((100 * (high - low) / measured).median()),
        "failure misjudged": f"{misjudged} of {len(predicted)}" if len(predicted) else "",
    }


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f} %"
