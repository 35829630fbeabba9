"""Predictions: a reason for every row, since none of these tables runs transformers' own loop on one card.

A row is looked at as a reader would: is it one card, was it compiled, is what ran stated, and whose code was it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tests.validation.columns import with_columns
from tests.validation.measured import printed

_STATED = ("method", "param_dtype", "optimizer", "micro_batch", "seq_len")
_NUMBERS = ("micro_batch", "seq_len")
# Columns that say by these words that something is not done.
_NONE = ("", "no", "none", "no (eager)", "false")


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own."""
    reasons = [reason_against(row) for row in rows.to_dict("records")]
    return with_columns(rows, [{"not_predicted": reason} for reason in reasons])


def measured(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the rows say was measured, for `tests.validation.scores`; None without measured values."""
    if not {"peak_value", "peak_unit", "peak_definition"} <= set(rows):
        return None
    return pd.DataFrame([_measured(row) for row in rows.to_dict("records")], index=rows.index)


def reason_against(row: Mapping[Any, Any]) -> str:
    """Return why a row is not predicted."""
    text = {str(name): str(value).strip() for name, value in row.items()}
    number = re.match(r"(\d+)", text["n_gpus"])
    if number is None:
        return "the number of cards is not stated"
    if int(number[1]) != 1:
        return (
            "several cards: what each keeps depends on the sharding, and a trace is of one process"
        )
    if text["compile"].lower() not in _NONE:
        return f"{text['compile']}: a compiled graph allocates otherwise than the model's operators"
    missing = [name for name in _STATED if not text[name]]
    if missing:
        return f"not stated: {', '.join(missing)}"
    unclear = [name for name in _NUMBERS if not re.fullmatch(r"\d+(\.0)?", text[name])]
    if unclear:
        return (
            f"{unclear[0]} is no number ({text[unclear[0]]}): it depends on data that is not known"
        )
    if text["activation_ckpt"].lower() not in (*_NONE, "yes", "full"):
        return (
            f"checkpointing {text['activation_ckpt']}: which operators are recomputed is not stated"
        )
    return f"{text['framework'] or 'an unnamed framework'} has model code of its own, which is not traced here"


def _measured(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's measured value; torchtitan's and torchao's `GB` are GiB of reserved memory."""
    unit = re.match(r"\w*", str(row["peak_unit"]))
    assert unit is not None
    binary = "GiB" in str(row["peak_unit"]) or "2^20" in str(row["peak_unit"])
    name = {"GB": "GiB", "MB": "MiB"}.get(unit[0], unit[0]) if binary else unit[0]
    return {
        "of": "reserved" if "reserved" in str(row["peak_definition"]) else "allocated",
        **printed(str(row["peak_value"]), name)._asdict(),
        "group": ", ".join(
            str(row[name] or f"{name} not stated") for name in ("method", "framework")
        ),
    }
