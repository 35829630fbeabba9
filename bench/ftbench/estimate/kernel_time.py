"""Kernel time: the seconds of a step on a card that was not measured, from the shapes of its kernels. Pure.

Each matrix product is computed in tiles, one tile at a time on each multiprocessor, so its time goes in waves (the
idea of NeuSight, Lee et al., ASPLOS 2025, with a few constants in the place of its networks):

    min over tiles and splits of  waves x 2 tm tn (k / split + k0) (1 + c / (tm tn)) / (e peak / multiprocessors)
    with waves = ceil(batch x ceil(m / tm) x ceil(n / tn) x split / multiprocessors)
    but at least its bytes / (eb bandwidth);  plus t0

All other kernels move bytes, through two limits: the memory's, and what multiprocessors x clock can ask for.
A power limit lowers the clock of products: a chip needs so many watts per peak TFLOP/s, by its generation.
The host starts kernels beside the card; the slower of the two decides, with a smooth corner between them.

Numbers are arrays over the kernels of many steps at once: a fit evaluates all published steps together.
`time_constants.toml` has the constants, with the evidence of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftbench.estimate.card_speed import CardSpeed
from ftbench.estimate.time_constants import TimeConstants
from ftbench.plan.gpus import Dtype
from ftbench.records.prediction import PassWork

Array = NDArray[np.float64]

# Sides of the tiles that libraries of products choose from, and numbers of parts that they split a depth into.
_TILES = ((256, 128), (128, 128), (128, 64), (64, 64), (32, 32))
_SPLITS = (1, 4)
_PARTIAL_BYTES = 8  # a split's partial sums are written and read again, in float32
_SIZES: Mapping[Dtype, int] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
_HALF: Mapping[str, Dtype] = {"float16": "fp16", "bfloat16": "bf16"}
# Exponents of the smooth corners: between the power limit and none, and between host and card. 1 would be a sum and
# infinity a sharp corner; not fitted.
_POWER_CORNER = 4.0
_HOST_CORNER = 6.0


@dataclasses.dataclass(frozen=True)
class Step:
    """One step, or other pass: its work, the card, the type of its float32 products, and the age of the software.

    `dtype` is fp32, or tf32 if float32 products are computed in it; products of half types keep theirs. `old` is
    for torch older than 1.12; `loops` for optimizers that loop over parameters. `waits` says that the host reads a
    value of the card between backward and the update, as gradient scaling and the Trainer's check of the loss do.
    """

    work: PassWork
    card: CardSpeed
    dtype: Dtype = "fp32"
    old: bool = False
    loops: bool = False
    waits: bool = True


@dataclasses.dataclass(frozen=True)
class StepSeconds:
    """The seconds of steps, an array of each: of the whole step, and of its parts if each had the card alone."""

    total: Array
    products: Array
    memory: Array
    attention: Array
    host: Array

    @property
    def host_share(self) -> Array:
        """Return the host's time in parts of the step's; near one if the card waits for the host."""
        return self.host / self.total


class Steps:
    """The kernels of steps as arrays, made once and evaluated for any constants."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._number = len(steps)
        self._products = _table(
            _of_product(i, step, product)
            for i, step in enumerate(steps)
            for product in step.work.by_kernel.products
        )
        self._attention = _table(
            _of_attention(i, step, call)
            for i, step in enumerate(steps)
            for call in step.work.by_kernel.attention
        )
        self._memory = _table(
            _of_memory(i, step, row)
            for i, step in enumerate(steps)
            for row in step.work.by_kernel.memory
        )
        self._number_of = _table(_of_host(i, step) for i, step in enumerate(steps))
        self._old = np.array([step.old for step in steps])
        self._waits = np.array([step.waits for step in steps])

    def seconds(self, constants: TimeConstants) -> StepSeconds:
        """Return the seconds of every step, in order."""
        c = constants
        age = np.where(self._old, c.old_software, 1.0)
        in_products = product_seconds(self._products, c)
        plain = self._products["plain"] > 0  # no library of plain products became faster
        products = self._sum(self._products, np.where(plain, in_products, 0.0))
        products = products + age * self._sum(self._products, np.where(plain, 0.0, in_products))
        in_memory, update = memory_seconds(self._memory, c), self._memory["update"] > 0
        memory = age * self._sum(self._memory, np.where(update, 0.0, in_memory))
        updating = age * self._sum(self._memory, np.where(update, in_memory, 0.0))
        attention = age * self._sum(self._attention, attention_seconds(self._attention, c))
        host = self._number_of["passes"] * c.host_s
        host_updating = self._number_of["update"] * c.host_update_s
        card = products + memory + attention
        apart = _slower(card, host) + _slower(updating, host_updating)
        together = _slower(card + updating, host + host_updating)
        return StepSeconds(
            np.where(self._waits, apart, together),
            products,
            memory + updating,
            attention,
            host + host_updating,
        )

    def _sum(self, table: Mapping[str, Array], seconds: Array) -> Array:
        rows = table["row"].astype(int)
        return np.bincount(rows, seconds, self._number)


def _slower(card: Array, host: Array) -> Array:
    """Return the time of a card and its host beside each other: the slower one's, with a smooth corner."""
    seconds: Array = (card**_HOST_CORNER + host**_HOST_CORNER) ** (1 / _HOST_CORNER)
    return seconds


def product_seconds(kernels: Mapping[str, Array], constants: TimeConstants) -> Array:
    """Return the seconds of matrix products, all of a row together."""
    c = constants
    b, m, n, k = (kernels[name] for name in ("batch", "m", "n", "k"))
    plain, tf32 = kernels["plain"] > 0, kernels["tf32"] > 0
    early = kernels["early"] > 0
    share = np.select(
        [plain, tf32, early], [c.plain_share, c.tf32_share, c.early_tensor_share], c.tensor_share
    )
    edge = np.where(plain, c.plain_tile_edge, c.tensor_tile_edge)
    multiprocessors = kernels["multiprocessors"]
    rate = kernels["peak"] * clock_share(kernels, c) * share / multiprocessors
    bandwidth = kernels["bandwidth"] * c.product_bandwidth_share
    best = np.full(b.shape, np.inf)
    for tall, wide in _TILES:
        tiles = b * np.ceil(m / tall) * np.ceil(n / wide)
        of_depth = 2 * (tall * wide + edge) / rate
        for split in _SPLITS:
            waves = np.ceil(tiles * split / multiprocessors)
            seconds = waves * of_depth * (np.ceil(k / split) + c.depth_overhead)
            if split > 1:
                seconds = seconds + _PARTIAL_BYTES * split * b * m * n / bandwidth
            best = np.minimum(best, seconds)
    moved = b * (m * k + k * n + m * n) * kernels["size"]
    one: Array = np.maximum(best, moved / bandwidth) + c.product_start_s
    return one * kernels["count"]


def memory_seconds(kernels: Mapping[str, Array], constants: TimeConstants) -> Array:
    """Return the seconds of kernels that are limited by the bytes they move."""
    through_memory = kernels["nbytes"] / (kernels["bandwidth"] * constants.bandwidth_share)
    cycles = kernels["cycles"] * constants.geforce_clock ** kernels["geforce"]
    asked_for = kernels["nbytes"] / (cycles * constants.bytes_per_cycle)
    seconds: Array = through_memory + asked_for + kernels["kernels"] * constants.kernel_start_s
    return seconds


def attention_seconds(kernels: Mapping[str, Array], constants: TimeConstants) -> Array:
    """Return the seconds of fused attention, all calls of a row together."""
    rate = kernels["peak"] * clock_share(kernels, constants) * constants.attention_share
    seconds: Array = kernels["flops"] / rate + kernels["count"] * constants.product_start_s
    return seconds


def clock_share(kernels: Mapping[str, Array], constants: TimeConstants) -> Array:
    """Return the clock under products in parts of the boost clock: what the power limit leaves of it."""
    half = np.where(kernels["plain"] > 0, 1.0, constants.tensor_power_share)
    watts: Array = sum(
        kernels[name] * need for name, need in constants.watts_per_tflops.items()
    ) + np.zeros_like(half)
    share: Array = (1 + (watts * half / kernels["tdp_per_tflops"]) ** _POWER_CORNER) ** (
        -1 / _POWER_CORNER
    )
    return share * constants.geforce_clock ** kernels["geforce"]


def _table(rows: Iterable[Mapping[str, float]]) -> Mapping[str, Array]:
    """Return rows as columns; without any, as empty columns."""
    kept = list(rows)
    if not kept:
        return _Empty()
    return {name: np.array([float(row[name]) for row in kept]) for name in kept[0]}


class _Empty(dict[str, Array]):
    """Columns of no rows: every one is there, and is empty."""

    def __missing__(self, name: str) -> Array:
        return np.zeros(0)


def product_type(step: Step, dtype: str) -> Dtype:
    """Return the type that products of this type of torch are computed in on a step's card.

    A card without a half type computes it in float32.
    """
    of = _HALF.get(dtype, step.dtype)
    return of if of in step.card.peak_flops else "fp32"


def _of_card(row: int, step: Step, dtype: str) -> dict[str, float]:
    """Return what a kernel's time needs of the card, for products in this type."""
    card = step.card
    of = product_type(step, dtype)
    peak = card.peak_flops[of]
    generations = ("pascal", "turing", "ga10x", "ada", "blackwell")
    return {
        "row": row,
        "peak": peak,
        "plain": float(of == "fp32"),
        "tf32": float(of == "tf32"),
        "early": float(card.early_tensor_cores),
        "geforce": float(card.geforce),
        "size": _SIZES[of],
        "bandwidth": card.bandwidth_bytes_per_s,
        "multiprocessors": card.multiprocessors,
        "cycles": card.multiprocessors * card.boost_hz,
        "tdp_per_tflops": card.tdp_watts / (peak / 1e12),
        **{name: float(card.generation == name) for name in generations},
    }


def _of_product(row: int, step: Step, product: Any) -> dict[str, float]:
    own = {name: float(getattr(product, name)) for name in ("batch", "m", "n", "k", "count")}
    return own | _of_card(row, step, product.dtype)


def _of_attention(row: int, step: Step, call: Any) -> dict[str, float]:
    own = {"flops": float(call.flops), "count": float(call.count)}
    return own | _of_card(row, step, call.dtype)


def _of_memory(row: int, step: Step, of: Any) -> dict[str, float]:
    kernels = of.tensors if step.loops else of.kernels
    own = {"nbytes": of.nbytes, "kernels": kernels, "update": float(of.update)}
    return own | _of_card(row, step, "")


def _of_host(row: int, step: Step) -> dict[str, float]:
    """Return the kernels that the host starts, in the passes and in the update."""
    rows = [of for of in step.work.by_kernel.memory if of.update]
    update = sum(of.kernels for of in rows)
    looped = sum(of.tensors for of in rows)
    return {
        "row": row,
        "passes": step.work.kernels - update,
        "update": looped if step.loops else update,
    }
