"""Errors of predicted fine-tunes: distances from measured peaks, and intervals that hold them. Pure."""

from __future__ import annotations

import pandas as pd

MEASURED, OUTCOME = "peak_allocated_bytes", "outcome"


def fine_tune_table(predictions: pd.DataFrame) -> str:
    """Return the errors of allocated memory as Markdown, by method and framework, then by model.

    An error is |predicted - measured| / measured. A row whose process died counts as misjudged if the prediction
    says that it fits, and one that ran if the prediction says that it does not.
    """
    answered = predictions[predictions["not_predicted"] == ""]
    lines = [_line("all", answered)]
    for keys in (["method", "framework_config"], ["model"]):
        lines += [
            _line(", ".join(map(str, name)), part)
            for name, part in answered.groupby(keys, sort=True)
        ]
    refused = predictions[predictions["not_predicted"] != ""]["not_predicted"].value_counts()
    reasons = "".join(f"- {count} rows not predicted: {why}\n" for why, count in refused.items())
    return f"# Predicted against measured\n\n{_markdown(lines)}\n\n{reasons}"


def _line(name: str, rows: pd.DataFrame) -> dict[str, str]:
    measured = pd.to_numeric(rows[MEASURED], errors="coerce")
    known = rows[measured.notna()]
    truth = measured[measured.notna()]
    errors = ((known["predicted_allocated_bytes"] - truth) / truth).abs()
    low, high = (known[f"predicted_allocated_{end}_bytes"] for end in ("low", "high"))
    died = rows[OUTCOME].str.startswith("failed")
    wrong = int((died != (rows["predicted_oom"] == 1)).sum())
    return {
        "rows": name,
        "measured": str(len(known)),
        "median error": _percent(errors.median()),
        "worst": _percent(errors.max()),
        "inside the interval": f"{int(((low <= truth) & (truth <= high)).sum())} of {len(known)}",
        "median width": _percent(((high - low) / truth).median()),
        "out of memory misjudged": f"{wrong} of {len(rows)}",
    }


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.3g} %"


def _markdown(lines: list[dict[str, str]]) -> str:
    head = list(lines[0])
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
