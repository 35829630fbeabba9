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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftbench.estimation.card_speed import CardSpeed
from ftbench.estimation.time_constants import TimeConstants
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
        works = {id(step.work): step.work for step in steps}
        of_works = {key: _Rows.of(work) for key, work in works.items()}
        rows = [of_works[id(step.work)] for step in steps]
        sheets = {(step.card.name, step.dtype): step for step in steps}
        places = {key: place for place, key in enumerate(sheets)}
        sheet_of = np.array([places[step.card.name, step.dtype] for step in steps], dtype=int)
        figures = np.array([[_figures(step, of) for of in _TYPES] for step in sheets.values()])
        self._products = _table(_PRODUCT, [one.products for one in rows], sheet_of, figures)
        self._attention = _table(_ATTENTION, [one.attention for one in rows], sheet_of, figures)
        self._memory = _table(_MEMORY, [one.memory for one in rows], sheet_of, figures)
        loops = np.array([step.loops for step in steps])
        if len(self._memory["row"]):
            looped = loops[self._memory["row"].astype(int)]
            self._memory["kernels"] = np.where(
                looped, self._memory["tensors"], self._memory["kernels"]
            )
        self._passes = np.array([float(step.work.kernels - one.update) for step, one in
                                 zip(steps, rows, strict=True)])  # fmt: skip
        self._update = np.array(
            [
                float(one.looped if step.loops else one.update)
                for step, one in zip(steps, rows, strict=True)
            ]
        )
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
        host = self._passes * c.host_s
        host_updating = self._update * c.host_update_s
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
        return np.bincount(rows, seconds, self._number).astype(float)


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
    overhead = np.where(plain, c.plain_depth_overhead, c.tensor_depth_overhead)
    multiprocessors = kernels["multiprocessors"]
    rate = kernels["peak"] * clock_share(kernels, c) * share / multiprocessors
    bandwidth = kernels["bandwidth"] * c.product_bandwidth_share
    best = np.full(b.shape, np.inf)
    for tall, wide in _TILES:
        tiles = b * np.ceil(m / tall) * np.ceil(n / wide)
        of_depth = 2 * (tall * wide + edge) / rate
        for split in _SPLITS:
            waves = np.ceil(tiles * split / multiprocessors)
            seconds = waves * of_depth * (np.ceil(k / split) + overhead)
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


def product_type(step: Step, dtype: str) -> Dtype:
    """Return the type that products of this type of torch are computed in on a step's card.

    A card without a half type computes it in float32.
    """
    of = _HALF.get(dtype, step.dtype)
    return of if of in step.card.peak_flops else "fp32"


# Columns: of the rows of a work, and of a card's data sheet for products in each type of torch.
_PRODUCT = ("batch", "m", "n", "k", "count", "type")
_ATTENTION = ("flops", "count", "type")
_MEMORY = ("nbytes", "kernels", "tensors", "update", "type")
_TYPES = ("float32", "float16", "bfloat16")
_GENERATIONS = ("pascal", "turing", "ga10x", "ada", "blackwell")
_FIGURES = ("peak", "plain", "tf32", "early", "geforce", "size", "bandwidth", "multiprocessors", "cycles",
            "tdp_per_tflops", *_GENERATIONS)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The kernels of one work as arrays, and the kernels of its update: as they are, and in loops."""

    products: Array
    attention: Array
    memory: Array
    update: int
    looped: int

    @classmethod
    def of(cls, work: PassWork) -> _Rows:
        """Return the rows of a work."""
        kernels = work.by_kernel
        updates = [row for row in kernels.memory if row.update]
        return cls(
            _array(
                [(p.batch, p.m, p.n, p.k, p.count, _type(p.dtype)) for p in kernels.products],
                len(_PRODUCT),
            ),
            _array(
                [(call.flops, call.count, _type(call.dtype)) for call in kernels.attention],
                len(_ATTENTION),
            ),
            _array(
                [(row.nbytes, row.kernels, row.tensors, row.update, 0) for row in kernels.memory],
                len(_MEMORY),
            ),
            sum(row.kernels for row in updates),
            sum(row.tensors for row in updates),
        )


def _array(rows: Sequence[tuple[float, ...]], width: int) -> Array:
    return np.array(rows, dtype=float).reshape(-1, width)


def _type(dtype: str) -> int:
    return _TYPES.index(dtype) if dtype in _TYPES else 0


def _figures(step: Step, dtype: str) -> list[float]:
    """Return the figures of a step's card for products in a type, in the order of `_FIGURES`."""
    card, of = step.card, product_type(step, dtype)
    peak = card.peak_flops[of]
    return [
        peak,
        of == "fp32",
        of == "tf32",
        card.early_tensor_cores,
        card.geforce,
        _SIZES[of],
        card.bandwidth_bytes_per_s,
        card.multiprocessors,
        card.multiprocessors * card.boost_hz,
        card.tdp_watts / (peak / 1e12),
        *(card.generation == name for name in _GENERATIONS),
    ]


def _table(
    names: Sequence[str], parts: Sequence[Array], sheet_of: NDArray[Any], figures: Array
) -> dict[str, Array]:
    """Return the rows of all steps as columns, each row with its step's number and its card's figures."""
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    own = np.concatenate(parts) if parts else np.zeros((0, len(names)))
    table = {name: own[:, place] for place, name in enumerate(names)} | {"row": rows.astype(float)}
    of_cards = (
        figures[sheet_of[rows], table["type"].astype(int)]
        if len(rows)
        else np.zeros((0, len(_FIGURES)))
    )
    return table | {name: of_cards[:, place] for place, name in enumerate(_FIGURES)}
