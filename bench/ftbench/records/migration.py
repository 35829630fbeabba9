"""Migration: converts records of an older schema, as JSON data, to the current schema."""

from __future__ import annotations

import math
from typing import Any

from ftbench.plan.scores import ACCURACY
from ftbench.records.record import SCHEMA_VERSION
from ftbench.records.scores import share_variance

# The oldest schema that is still read: earlier ones lack figures that this version requires.
OLDEST = 3
# Fields of a measurement that belong to a rank since schema 4.
_OF_RANK = ("device", "model_device", "phases", "steps", "memory", "idle", "sampling")

# Paths of figures that had another name.
_ABSENT = {"eval_accuracy": "scores", "epochs.eval_accuracy": "epochs.scores"}
_UNTRUSTED = {"eval_accuracy": f"scores.{ACCURACY.name}"}


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a record or a batch probe in the current schema; raises KeyError, TypeError.

    The result is not validated. Data of an unknown version is returned unchanged.
    """
    if data.get("schema_version") != OLDEST:
        return data
    measured = data.get("measurement")
    renamed: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    if "untrusted" in data:
        renamed["untrusted"] = {
            _UNTRUSTED.get(path, path): reason for path, reason in data["untrusted"].items()
        }
    if measured is not None:
        renamed["measurement"] = _measurement(measured, data["cell"]["data"]["eval_size"])
    return data | renamed


def _measurement(old: dict[str, Any], eval_size: int) -> dict[str, Any]:
    """Return a measurement with one rank, and with accuracy as a score without the score of a guess."""
    rank = {"rank": 0} | {name: old[name] for name in _OF_RANK}
    kept = {name: value for name, value in old.items() if name not in (*_OF_RANK, "eval_accuracy")}
    accuracy = old["eval_accuracy"]
    return kept | {
        "ranks": [rank],
        "scores": [] if accuracy is None else [_accuracy(accuracy, eval_size)],
        "epochs": [_epoch(epoch) for epoch in old["epochs"]],
        "absent": {_ABSENT.get(path, path): reason for path, reason in old["absent"].items()},
    }


def _accuracy(value: float, eval_size: int) -> dict[str, Any]:
    whole = isinstance(value, (int, float)) and 0 <= value <= 1 and eval_size > 0
    error = math.sqrt(share_variance(value, eval_size)) if whole else None
    return {
        "name": ACCURACY.name,
        "value": value,
        "higher_is_better": True,
        "standard_error": error,
    }


def _epoch(old: dict[str, Any]) -> dict[str, Any]:
    accuracy = old["eval_accuracy"]
    kept = {name: value for name, value in old.items() if name != "eval_accuracy"}
    return kept | {"scores": {} if accuracy is None else {ACCURACY.name: accuracy}}
