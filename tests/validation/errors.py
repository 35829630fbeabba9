"""Errors: how far predictions are from measured peaks, beside other published predictors. Pure."""

from __future__ import annotations

import pandas as pd

# Another predictor's columns: NAME_bytes, NAME_oom; the estimates are of the same measured value.
PEERS = ("xmem", "dnnmem", "schedtune", "llmem")
# Cells that are the same work on the same card: Adam and AdamW allocate the same.
_SAME = ["model", "family", "batch", "gpu", "zero_grad"]


def error_table(predictions: pd.DataFrame) -> str:
    """Return the errors as Markdown: ours and the peers', by noise flag, by model and optimizer.

    An error is |predicted - measured| / measured of reserved memory; cells that ran out of memory
    count as misjudged where the prediction says otherwise, and the other way round. Rows of the same
    cell are counted once, with the first's measured value.
    """
    rows = distinct(predictions)
    sections = ["# Predicted against measured\n"]
    for name, group in rows.groupby(rows["noise_flag"].replace("", "none"), sort=True):
        sections.append(f"## Noise flag: {name} ({len(group)} distinct cells)\n")
        sections.append(_markdown([_line("all", group), *_lines(group)]))
        if name == "none":
            sections.append("\nPublished predictors on the same cells:\n")
            peers = [peer for peer in PEERS if _has(peer, rows)]
            parts = {"": group} | {f", {on}": part for on, part in _by_card(group)}
            sections.append(
                _markdown(
                    [_peer_line(peer, of, part) for of, part in parts.items() for peer in peers]
                )
            )
    return "\n".join(sections) + "\n"


def distinct(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each distinct cell."""
    rows = predictions.copy()
    rows["family"] = rows["optimizer"].replace({"AdamW": "Adam"})
    rows["zero_grad"] = 0
    if "zero_grad_mode" in rows:
        rows["zero_grad"] = pd.to_numeric(rows["zero_grad_mode"], errors="coerce").fillna(0)
    if "noise_flag" not in rows:
        rows["noise_flag"] = ""
    rows["noise_flag"] = rows["noise_flag"].fillna("")
    return rows.drop_duplicates([*_SAME, "noise_flag"])


def _lines(group: pd.DataFrame) -> list[dict[str, str]]:
    by = group.groupby(["model", "family"], sort=True)
    return [
        *(_line(on, part) for on, part in _by_card(group)),
        *(_line(f"{model}, {family}", part) for (model, family), part in by),
    ]


def _by_card(group: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the cells on each line of cards, as `on GeForce`; nothing where there is only one."""
    found = list(group.groupby(group["gpu"].str.split("-").str[0], sort=True))
    return [(f"on {name}", part) for name, part in found] if len(found) > 1 else []


def _line(name: str, group: pd.DataFrame) -> dict[str, str]:
    judged = group[(group["oom"].astype(int) == 0) & (group["predicted_oom"] == 0)]
    measured = judged["measured_bytes"].astype(float)
    error = (judged["predicted_reserved_bytes"] - measured).abs() / measured * 100
    width = (
        judged["predicted_reserved_high_bytes"] - judged["predicted_reserved_low_bytes"]
    ) / measured
    inside = (judged["predicted_reserved_low_bytes"] <= measured) & (
        measured <= judged["predicted_reserved_high_bytes"]
    )
    return {
        "cells": name,
        **_quantiles(error),
        "misjudged OOM": _misjudged(group, group["predicted_oom"]),
        "inside the interval": f"{int(inside.sum())} of {len(judged)}",
        "median width": f"{100 * width.median():.2f} %" if len(judged) else "",
    }


def _peer_line(peer: str, of: str, group: pd.DataFrame) -> dict[str, str]:
    out = pd.to_numeric(group[f"{peer}_oom"], errors="coerce").fillna(0).astype(int)
    known = pd.to_numeric(group[f"{peer}_bytes"], errors="coerce")
    judged = group[(group["oom"].astype(int) == 0) & (out == 0) & (known > 0)]
    measured = judged["measured_bytes"].astype(float)
    error = (known[judged.index] - measured).abs() / measured * 100
    return {"predictor": peer + of, **_quantiles(error), "misjudged OOM": _misjudged(group, out)}


def _quantiles(error: pd.Series) -> dict[str, str]:  # type: ignore[type-arg]
    if error.empty:
        return {"judged": "0", "median": "", "p95": "", "max": ""}
    figures = {"median": error.median(), "p95": error.quantile(0.95), "max": error.max()}
    return {"judged": str(len(error)), **{k: f"{v:.2f} %" for k, v in figures.items()}}


def _misjudged(group: pd.DataFrame, predicted: pd.Series) -> str:  # type: ignore[type-arg]
    wrong = group["oom"].astype(int) != predicted.astype(int)
    return f"{int(wrong.sum())} of {len(group)}"


def _has(peer: str, rows: pd.DataFrame) -> bool:
    return f"{peer}_bytes" in rows and f"{peer}_oom" in rows


def _markdown(lines: list[dict[str, str]]) -> str:
    if not lines:
        return ""
    head = list(lines[0])
    table = [head, ["---"] * len(head), *([line[name] for name in head] for line in lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)
