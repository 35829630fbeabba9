"""Predictions: the published loop traced for every row of a file, and simulated on the row's card."""

from __future__ import annotations

import itertools
import random
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import transformers

from ftbench.plan.gpus import find_gpu
from ftbench.prediction.shapes.fit import FitError, fit_events
from ftbench.prediction.simulate.cards import Card, card_of
from ftbench.prediction.simulate.simulation import SCENARIOS, simulate_all
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.loop import ITERATIONS, MAX_LENGTH, load_architecture, published_loop

TORCH = (2, 6)  # what the published cells were measured with
WORKERS = 2
# The loop pads a batch to its longest line. From this many lines on, one of them has all 128 tokens in
# practice; below, it is open which lengths the four batches have, and in which order.
SURELY_FULL = 15
SHORTER = range(MAX_LENGTH, 24, -8)
FIT_LENGTHS = (128, 40, 72, 88, 120)
ORDERS = 96


class Key(NamedTuple):
    """What decides a trace."""

    model: str
    optimizer: str
    batch: int
    zero_grad_at: int
    varying: bool
    capability: tuple[int, int]


def predict_rows(cells: pd.DataFrame, configs: Path) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own."""
    keys = [_key(row) for _, row in cells.iterrows()]
    cards = [_card(row) for _, row in cells.iterrows()]
    jobs: dict[Key, list[Card]] = {}
    for key, card in zip(keys, cards, strict=True):
        if card not in jobs.setdefault(key, []):
            jobs[key].append(card)
    done: dict[tuple[Key, Card], dict[str, object]] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        answers = pool.map(_predict, jobs, jobs.values(), itertools.repeat(configs))
        for number, (key, found) in enumerate(zip(jobs, answers, strict=True), start=1):
            done.update({(key, card): figures for card, figures in found})
            print(f"{number}/{len(jobs)} {key.model} {key.optimizer} {key.batch}", file=sys.stderr)
    figures = [done[pair] for pair in zip(keys, cards, strict=True)]
    return pd.concat([cells, pd.DataFrame(figures, index=cells.index)], axis=1)


def _key(row: pd.Series) -> Key:  # type: ignore[type-arg]
    batch = int(row["batch"])
    capability = _gpu(row).compute_capability
    # Where no position is recorded, gradients were zeroed at the loop's start.
    recorded = pd.to_numeric(row.get("zero_grad_mode"), errors="coerce")
    zero_grad_at = 0 if pd.isna(recorded) else int(recorded)
    varying = batch < SURELY_FULL and not _of_fixed_length(str(row["model"]))
    return Key(str(row["model"]), str(row["optimizer"]), batch, zero_grad_at, varying, capability)


def _of_fixed_length(model: str) -> bool:
    """Return whether a model's lines were all padded to 128 tokens when they were tokenised."""
    return any(part in model for part in ("pythia", "DeepSeek-R1", "Qwen3"))


def _gpu(row: pd.Series):  # type: ignore[type-arg,no-untyped-def]
    return find_gpu(str(row["gpu"]))


def _card(row: pd.Series) -> Card:  # type: ignore[type-arg]
    gpu = _gpu(row)
    total = int(row["total_gpu_bytes"])
    gpu = gpu.model_copy(update={"memory_low_bytes": total, "memory_bytes": total})
    return card_of(gpu, TORCH)


def _predict(
    key: Key, cards: Sequence[Card], configs: Path
) -> list[tuple[Card, dict[str, object]]]:
    """Return the predicted columns of a key on each of its cards."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    began = time.perf_counter()
    traces = _traces(key, configs)
    traced = time.perf_counter() - began
    return [(card, _columns(traces, card, traced)) for card in cards]


def _traces(key: Key, configs: Path) -> list[Trace]:
    """Return the cell's trace; with varying lengths, one for each of a sample of their orders.

    The first has the full length throughout.
    """
    config = load_architecture(configs / f"{key.model.replace('/', '--')}.json")

    def of(lengths: Sequence[int]) -> Trace:
        factory = published_loop(config, key.optimizer, key.batch, lengths, key.zero_grad_at)
        target = Target(compute_capability=key.capability)
        return trace(factory, steps=ITERATIONS, target=target)

    if not key.varying:
        return [of([MAX_LENGTH] * ITERATIONS)]
    shapes = {(key.batch, length): of([length] * ITERATIONS) for length in FIT_LENGTHS}
    try:
        fitted = fit_events(shapes)
    except FitError:
        return [shapes[key.batch, MAX_LENGTH]]
    orders = list(itertools.product(SHORTER, repeat=ITERATIONS))
    chosen = [orders[0], *random.Random(0).sample(orders[1:], ORDERS)]
    return [fitted.in_order(key.batch, order) for order in chosen]


def stack_bytes(card: Card) -> int:
    """Return the most that the context grows by from its making to the last step.

    Kernels whose registers spill get a stack in device memory, for every thread that the card can hold;
    the driver makes it when the first such kernel is launched, and does not give it back. The limit is
    1 KiB per thread (cudaLimitStackSize, its default).
    """
    return 1024 * card.runtime.multiprocessors * card.runtime.threads_per_multiprocessor


def _columns(traces: Sequence[Trace], card: Card, traced_s: float) -> dict[str, object]:
    began = time.perf_counter()
    simulated = simulate_all(traces, card.runtime, card.capacities, scenarios=SCENARIOS)
    low, high = simulated.interval("peak_reserved_bytes")
    return {
        "predicted_reserved_bytes": simulated.first.peak_reserved_bytes,
        "predicted_reserved_low_bytes": low,
        "predicted_reserved_high_bytes": high + stack_bytes(card),
        "predicted_allocated_bytes": simulated.first.peak_allocated_bytes,
        "predicted_oom": int(simulated.first.out_of_memory),
        "seconds": round(traced_s + time.perf_counter() - began, 3),
    }
