"""Merge: the answers of all ranks as the one answer of a cell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftbench.records.measurement import Measurement, RankMeasurement, RunWarning
from ftbench.records.messages import LaunchRequest, TwoStepPass, TwoStepPasses, of_rank
from ftbench.records.readings import Epoch, Load
from ftbench.worker.measure.meters.machine import load_warnings
from ftbench.worker.measure.steps import step_warnings, summarise, write_steps

# Warnings that are judged anew: about the steps, and about the machine, on which other ranks are no strangers.
_JUDGED_ANEW = ("spread", "drift", "unsteady", "others_busy", "steal", "swap", "throttled")


def merged_answer(request: LaunchRequest, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one answer for those of all ranks, in their order: of a cell, or of a two-step pass."""
    if "two_step" in answers[0]:
        passes = tuple(TwoStepPass.model_validate(answer["two_step"]) for answer in answers)
        return {"status": "ok", "two_step": TwoStepPasses(ranks=passes).model_dump(mode="json")}
    measured = [Measurement.model_validate(answer["measurement"]) for answer in answers]
    file = request.request["steps_file"]
    tables = [
        pd.read_parquet(request.path(of_rank(file, rank))) for rank in range(request.processes)
    ]
    table = merged_steps(tables)
    write_steps(table, request.path(file))
    merged = merged_measurement(measured, table)
    return {"status": "ok", "measurement": merged.model_dump(mode="json")}


def merged_steps(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one row per step for the tables of all ranks.

    A step takes as long as on its slowest rank; examples, tokens and FLOPs are sums, the loss is the mean, which is
    that of the whole batch if all ranks have as many examples. Other columns are those of rank 0.
    """
    stacked = pd.concat(tables).groupby("step", sort=True)
    merged = tables[0].set_index("step")
    for how, names in (
        ("max", ("step_s", "data_wait_s", "length")),
        ("sum", ("samples", "real_tokens", "padded_tokens", "flops")),
        (_mean_of_all, ("loss",)),
    ):
        for name in names:
            if name in merged:
                merged[name] = stacked[name].agg(how)
    return merged.reset_index()[list(tables[0].columns)]


def _mean_of_all(values: pd.Series[float]) -> float:
    """Return the mean; NaN if it is NaN on one rank."""
    return float(values.mean(skipna=False))


def merged_measurement(measured: Sequence[Measurement], table: pd.DataFrame) -> Measurement:
    """Return one measurement for those of all ranks, and the table of their steps together.

    What all ranks have alike (the scores, the evaluation's loss, times of phases) is rank 0's. Losses of training
    are means over the ranks. Cards' peak FLOP/s are summed; that of the processors is the machine's.
    """
    first = measured[0]
    ranks = tuple(
        one.ranks[0].model_copy(update={"rank": rank}) for rank, one in enumerate(measured)
    )
    peak = _peak_flops(measured)
    together = summarise(table, peak)
    load = _load(first.load, ranks)
    kept = [w for w in first.warnings if w.name not in _JUDGED_ANEW]
    return first.model_copy(
        update={
            "ranks": ranks,
            "together": together,
            "peak_matmul_flops": peak,
            "train_loss": _mean([one.train_loss for one in measured]),
            "epochs": tuple(map(_epoch, zip(*(one.epochs for one in measured), strict=True))),
            "load": load,
            "absent": _absent(measured),
            "warnings": (
                *kept,
                *_of_others(measured),
                *step_warnings(table, together),
                *load_warnings(load),
            ),
        }
    )


def _peak_flops(measured: Sequence[Measurement]) -> float | None:
    peaks = [one.peak_matmul_flops for one in measured if one.peak_matmul_flops is not None]
    if len(peaks) < len(measured):
        return None
    return max(peaks) if measured[0].device.kind == "cpu" else sum(peaks)


def _epoch(epochs: Sequence[Epoch]) -> Epoch:
    loss = _mean([epoch.train_loss for epoch in epochs])
    return epochs[0].model_copy(update={"train_loss": loss})


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if a value is absent."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _load(load: Load, ranks: Sequence[RankMeasurement]) -> Load:
    """Return the load that rank 0 has seen, without the processor time of the other ranks."""
    if load.others_cpu_share is None:
        return load
    seconds = sum(phase.wall_s for phase in ranks[0].phases.values())
    used = sum(phase.cpu_s for rank in ranks[1:] for phase in rank.phases.values())
    share = used / max(seconds * (os.cpu_count() or 1), 1e-9)
    return load.model_copy(update={"others_cpu_share": max(0.0, load.others_cpu_share - share)})


def _absent(measured: Sequence[Measurement]) -> dict[str, str]:
    """Return the reasons of rank 0, and those that only another rank has, under the rank's path."""
    reasons = dict(measured[0].absent)
    for rank, one in enumerate(measured):
        reasons |= {
            f"ranks.{rank}.{path}": reason
            for path, reason in one.absent.items()
            if path not in reasons
        }
    return reasons


def _of_others(measured: Sequence[Measurement]) -> list[RunWarning]:
    """Return the warnings of a kind that rank 0 does not have, the first rank's of each kind, with its number."""
    known = {warning.name for warning in measured[0].warnings} | set(_JUDGED_ANEW)
    found = []
    for rank, one in enumerate(measured):
        for warning in one.warnings:
            if warning.name not in known:
                known.add(warning.name)
                message = f"rank {rank}: {warning.message}"
                found.append(warning.model_copy(update={"message": message}))
    return found
