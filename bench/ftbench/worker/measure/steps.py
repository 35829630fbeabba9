"""Steps: the raw samples of every optimizer step, and the statistics derived from them.

A step lasts from the request for its batch to the end of the optimizer's work, so it includes waiting
for data. Evaluation, logging and saving happen between steps and are not included. accelerate's
loader fetches one batch ahead, so a step waits for the batch of the next one, and the first step of an epoch
waits for two.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ftbench.base.files import remove_link
from ftbench.records.measurement import RunWarning
from ftbench.records.readings import FIRST_STEPS, StepSummary
from ftbench.worker.measure.meters.clock import StepClock
from ftbench.worker.measure.statistics import (
    UNSTEADY_WARN,
    Warmup,
    drift,
    median_interval,
    warmup,
)

# If the interquartile range is above this share of the median, the median is not reliable.
SPREAD_WARN = 0.20
# If the median changes by more than this share from the first third of the steady steps to the last, the
# machine's state changed.
DRIFT_WARN = 0.05


class StepBook:
    """Collects one row per step; nothing here makes the device wait."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._flattened: torch.Tensor | None = None

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
        """Record the batches after they were fetched."""
        row = self._rows[-1]
        row["data_wait_s"] += time.perf_counter()
        row["shapes"] = [tuple(batch["input_ids"].shape) for batch in batches]
        row["length"] = max(length for _, length in row["shapes"])
        row["samples"] = row["squares"] = 0
        for batch, (samples, length) in zip(batches, row["shapes"], strict=True):
            if _is_flattened(batch):
                self._count_flattened(batch["position_ids"])
                continue
            row["samples"] += samples
            row["squares"] += samples * length**2
            self._real_tokens[len(self._rows) - 1] += batch["attention_mask"].sum()

    def _count_flattened(self, positions: torch.Tensor) -> None:
        """Count the examples in one row and sum their squared lengths; positions begin at 0 in each.

        The sum of 2 p + 1 over the positions p of an example is its length squared.
        """
        step = len(self._rows) - 1
        if self._flattened is None:
            self._flattened = torch.zeros(
                len(self._losses), 2, dtype=torch.int64, device=positions.device
            )
        self._flattened[step, 0] += (positions == 0).sum()
        self._flattened[step, 1] += (2 * positions + 1).sum()
        self._real_tokens[step] += positions.numel()

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
        """Return one row per finished step; `flops` are an example's FLOPs by length (c0, c1, c2)."""
        rows = self._rows[: self.finished]
        marks = self._clock.seconds()
        began, ended = marks[0 : 2 * len(rows) : 2], marks[1 : 2 * len(rows) : 2]
        flattened = self._counts_of_flattened()[: len(rows)]
        table = pd.DataFrame(
            {
                "step": range(1, len(rows) + 1),
                "epoch": [row["epoch"] for row in rows],
                "began_s": began,
                "step_s": [end - begin for begin, end in zip(began, ended, strict=True)],
                "data_wait_s": [row["data_wait_s"] for row in rows],
                "samples": [row["samples"] for row in rows] + flattened[:, 0],
                "length": [row["length"] for row in rows],
                "real_tokens": self._real_tokens[: len(rows)].tolist(),
                "padded_tokens": [sum(b * s for b, s in row["shapes"]) for row in rows],
                "loss": self._losses[: len(rows)].tolist(),
            }
        )
        if flops is not None:
            c0, c1, c2 = flops
            squares = np.array([row["squares"] for row in rows], dtype=np.int64) + flattened[:, 1]
            # Python's numbers: the FLOPs of a step can be more than 64 bits hold.
            counts = table[["samples", "padded_tokens"]].to_numpy().tolist()
            table["flops"] = [
                float(c0 * samples + c1 * tokens + c2 * int(square))
                for (samples, tokens), square in zip(counts, squares, strict=True)
            ]
        return table

    def _counts_of_flattened(self) -> npt.NDArray[np.int64]:
        if self._flattened is None:
            return np.zeros((len(self._losses), 2), dtype=np.int64)
        counts: npt.NDArray[np.int64] = self._flattened.cpu().numpy()
        return counts


def _is_flattened(batch: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a batch has its examples in one row, without padding."""
    return "position_ids" in batch and "attention_mask" not in batch


def example_flops(coefficients: tuple[int, int, int], length: int) -> int:
    """Return the FLOPs of training on one example, c0 + c1*S + c2*S^2, without recomputation."""
    c0, c1, c2 = coefficients
    return c0 + c1 * length + c2 * length**2


def write_steps(table: pd.DataFrame, file: str) -> None:
    """Write the step table as Parquet."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    remove_link(Path(file))
    table.to_parquet(file, index=False)


def summarise(table: pd.DataFrame, peak_flops: float | None) -> StepSummary | None:
    """Return the statistics of the steps after warm-up; None if there are none.

    Warm-up is the first two steps, or more if more are significantly slower. The median, its interval and
    the quartiles are those of full-size steps only (the last batch of an epoch may be smaller). Rates are
    counts over all steps after warm-up, divided by their time.
    """
    warm, _ = _warmup(table)
    later = table[table["step"] > warm]
    if later.empty:
        return None
    full = later[later["samples"] == table["samples"].max()]
    full = later if full.empty else full
    seconds, samples = float(later["step_s"].sum()), int(later["samples"].sum())
    flops = float(later["flops"].sum()) / seconds if "flops" in later else None
    quartiles = full["step_s"].quantile([0.25, 0.5, 0.75])
    low, high = median_interval(full["step_s"].to_numpy(dtype=float))
    return StepSummary(
        count=len(full),
        warmup_steps=warm,
        median_s=quartiles[0.5],
        median_low_s=low,
        median_high_s=high,
        min_s=float(full["step_s"].min()),
        q1_s=quartiles[0.25],
        q3_s=quartiles[0.75],
        seconds=seconds,
        samples=samples,
        data_wait_median_s=float(full["data_wait_s"].median()),
        samples_per_s=samples / seconds,
        real_tokens_per_s=float(later["real_tokens"].sum()) / seconds,
        padded_tokens_per_s=float(later["padded_tokens"].sum()) / seconds,
        flops_per_s=flops,
        mfu=flops / peak_flops if flops is not None and peak_flops else None,
    )


def step_warnings(table: pd.DataFrame, steps: StepSummary | None) -> list[RunWarning]:
    """Return the warnings about step times: no steady state, spread, drift."""
    if steps is None:
        return []
    warnings = (_unsteady(table), _spread(table, steps), _drift(table, steps))
    return [run_warning for run_warning in warnings if run_warning is not None]


def _lengths_differ(table: pd.DataFrame) -> bool:
    return table["length"].nunique() > 1


def _full_size(table: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of the steps with the largest number of samples."""
    return table["samples"] == table["samples"].max()


def _pace(table: pd.DataFrame) -> pd.Series[float]:
    """Return seconds per step, or per padded token if lengths differ, so that steps can be compared.

    Padded tokens count, since they are computed as well.
    """
    return table["step_s"] / table["padded_tokens"] if _lengths_differ(table) else table["step_s"]


def _warmup(table: pd.DataFrame) -> tuple[int, Warmup]:
    """Return the number of warm-up steps, and the verdict on the times of full-size steps."""
    full = table[_full_size(table)]
    found = warmup(_pace(table)[full.index].to_numpy(dtype=float))
    slow = int(full["step"].iloc[found.samples]) - 1 if found.samples else 0
    return max(FIRST_STEPS, slow), found


def _unsteady(table: pd.DataFrame) -> RunWarning | None:
    """Return a warning if the steps kept getting faster; its value is a share of the limit."""
    _, found = _warmup(table)
    if found.verdict != "unsteady":
        return None
    return RunWarning(
        name="unsteady",
        message=(
            f"steps were still getting faster after {found.samples} steps, probably because"
            " the run is too short for its warm-up: train for more steps"
        ),
        value=found.samples / found.limit,
        threshold=UNSTEADY_WARN,
    )


def _spread(table: pd.DataFrame, steps: StepSummary) -> RunWarning | None:
    """Return a warning if the interquartile range of step times is large.

    None if batches have different lengths, since their times differ then.
    """
    spread = (steps.q3_s - steps.q1_s) / steps.median_s
    if _lengths_differ(table) or spread <= SPREAD_WARN:
        return None
    return RunWarning(
        name="spread",
        message=(
            f"the interquartile range of step times is {spread:.0%} of their median, probably"
            " because other programs used the machine: run the cell again on an idle machine"
        ),
        value=spread,
        threshold=SPREAD_WARN,
    )


def _drift(table: pd.DataFrame, steps: StepSummary) -> RunWarning | None:
    """Return a warning if the median step time changed by more than chance explains.

    If batches have different lengths, the time per padded token is compared. It depends on the length a
    little, so there is no warning if the lengths changed as well: examples grouped by length come longest
    first.
    """
    full = table[(table["step"] > steps.warmup_steps) & _full_size(table)]
    found = drift(_pace(table)[full.index].to_numpy(dtype=float))
    if found is None or not found.stands_out or abs(found.change) <= DRIFT_WARN:
        return None
    lengths = drift(full["length"].to_numpy(dtype=float))
    if lengths is not None and lengths.stands_out:
        return None
    slower = found.change > 0
    cause = "the machine heated up or other programs started" if slower else "other programs ended"
    return RunWarning(
        name="drift",
        message=(
            f"steps got {abs(found.change):.0%} {'slower' if slower else 'faster'} from their first"
            f" third to their last, probably because {cause}: run the cell again on an idle machine"
        ),
        value=found.change,
        threshold=DRIFT_WARN,
    )
