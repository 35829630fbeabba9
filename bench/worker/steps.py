"""Steps: the raw samples of every optimizer step, and the statistics derived from them.

A step runs from the moment its batch is asked for to the end of the optimizer's work, so waiting
for data is inside it. Evaluation, logging and saving come between steps and are not. accelerate's
loader fetches one batch ahead, so the wait of a step is for the batch of the next one, and the
first of an epoch waits for two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.record import FIRST_STEPS, StepSummary
from bench.worker.meters.clock import StepClock

# A spread above this makes a median worth little: the record carries a warning.
SPREAD_WARN = 0.20


class StepBook:
    """Gathers one row a step; nothing here makes the device wait."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def start(self, clock: StepClock, device: torch.device, max_steps: int) -> None:
        """Begin a training of at most `max_steps` steps.

        Token counts and losses stay on the device until the end: reading them would synchronise.
        """
        self._clock = clock
        self._real_tokens = torch.zeros(max_steps, dtype=torch.int64, device=device)
        self._losses = torch.zeros(max_steps, dtype=torch.float32, device=device)

    @property
    def finished(self) -> int:
        """Return the number of steps that ended."""
        return len(self._rows) - (1 if self._rows and "ended" not in self._rows[-1] else 0)

    def begin(self, epoch: float) -> None:
        """Begin a step, before its batches are fetched."""
        self._clock.mark()
        self._rows.append({"epoch": int(epoch), "data_wait_s": -time.perf_counter()})

    def fetched(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        """Note that the batches are there, and what is in them."""
        row = self._rows[-1]
        row["data_wait_s"] += time.perf_counter()
        shapes = [batch["input_ids"].shape for batch in batches]
        row["samples"] = sum(shape[0] for shape in shapes)
        row["length"] = max(shape[1] for shape in shapes)
        row["shapes"] = [tuple(shape) for shape in shapes]
        for batch in batches:
            self._real_tokens[len(self._rows) - 1] += batch["attention_mask"].sum()

    def loss(self, value: torch.Tensor) -> None:
        """Add the loss of one micro-batch to the step's."""
        self._losses[len(self._rows) - 1] += value

    def end(self) -> None:
        """End the step."""
        self._clock.mark()
        self._rows[-1]["ended"] = True

    def last_loss(self) -> float:
        """Return the loss of the step that ended last; waits for the device."""
        return float(self._losses[self.finished - 1])

    def epochs(self) -> list[int]:
        """Return the epochs, counted from 0, that a step ended in."""
        return sorted({row["epoch"] for row in self._rows[: self.finished]})

    def epoch_loss(self, epoch: int) -> float | None:
        """Return the mean training loss over the steps of one epoch (counted from 0)."""
        steps = [i for i, row in enumerate(self._rows[: self.finished]) if row["epoch"] == epoch]
        return float(self._losses[steps].mean()) if steps else None

    def table(self, flops: tuple[int, int, int] | None) -> pd.DataFrame:
        """Return one row a finished step; `flops` gives a document's FLOPs by length (c0, c1, c2)."""
        rows = self._rows[: self.finished]
        marks = self._clock.seconds()
        began, ended = marks[0 : 2 * len(rows) : 2], marks[1 : 2 * len(rows) : 2]
        table = pd.DataFrame(
            {
                "step": range(1, len(rows) + 1),
                "epoch": [row["epoch"] for row in rows],
                "began_s": began,
                "step_s": [end - begin for begin, end in zip(began, ended, strict=True)],
                "data_wait_s": [row["data_wait_s"] for row in rows],
                "samples": [row["samples"] for row in rows],
                "length": [row["length"] for row in rows],
                "real_tokens": self._real_tokens[: len(rows)].tolist(),
                "padded_tokens": [sum(b * s for b, s in row["shapes"]) for row in rows],
                "loss": self._losses[: len(rows)].tolist(),
            }
        )
        if flops is not None:
            table["flops"] = [
                sum(b * document_flops(flops, s) for b, s in row["shapes"]) for row in rows
            ]
        return table


def document_flops(coefficients: tuple[int, int, int], length: int) -> int:
    """Return the FLOPs of training on one document: c0 + c1*S + c2*S^2, recomputation not counted."""
    c0, c1, c2 = coefficients
    return c0 + c1 * length + c2 * length**2


def write_steps(table: pd.DataFrame, file: str) -> None:
    """Write the step table as Parquet."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(file, index=False)


def summarise(table: pd.DataFrame, peak_flops: float | None) -> StepSummary | None:
    """Return the statistics of the steps after the first two; None where there are none.

    The median and quartiles are of full-size steps only (the last batch of an epoch may be
    smaller); rates are over every step: what was seen, divided by the time it took.
    """
    later = table[table["step"] > FIRST_STEPS]
    if later.empty:
        return None
    full = later[later["samples"] == table["samples"].max()]
    full = later if full.empty else full
    seconds = float(later["step_s"].sum())
    flops = float(later["flops"].sum()) / seconds if "flops" in later else None
    quartiles = full["step_s"].quantile([0.25, 0.5, 0.75])
    return StepSummary(
        count=len(full),
        median_s=quartiles[0.5],
        q1_s=quartiles[0.25],
        q3_s=quartiles[0.75],
        data_wait_median_s=float(full["data_wait_s"].median()),
        samples_per_s=float(later["samples"].sum()) / seconds,
        real_tokens_per_s=float(later["real_tokens"].sum()) / seconds,
        padded_tokens_per_s=float(later["padded_tokens"].sum()) / seconds,
        flops_per_s=flops,
        mfu=flops / peak_flops if flops is not None and peak_flops else None,
    )


def spread_warning(table: pd.DataFrame, steps: StepSummary | None) -> str | None:
    """Return a warning where the middle half of the step times is wide.

    Not where batches have different lengths: then their steps are meant to differ.
    """
    if steps is None or table["length"].nunique() > 1:
        return None
    if (steps.q3_s - steps.q1_s) <= SPREAD_WARN * steps.median_s:
        return None
    spread = (steps.q3_s - steps.q1_s) / steps.median_s
    return f"the interquartile range of step times is {spread:.0%} of their median: was the machine busy?"
