"""Calibrated time: the seconds of a pass on a device whose kernels were measured, by interpolation. Pure.

A kernel like a measured one takes as long as that. Between measured sizes of one kind, time is interpolated, in
logarithms. A product is compared with what the fastest measured rate and bandwidth would give, and the ratio is
taken from the measured products of the nearest shapes: it changes slowly with the shape.

On a card the host starts kernels beside it, and the slower of the two decides; on a CPU the two add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ftbench.records.calibration import Calibration, MemoryTiming
from ftbench.records.kernel_work import AttentionCall, MemoryKernels, MemoryKind, Product
from ftbench.records.prediction import PassWork

Array = NDArray[np.float64]

# Products that a shape is compared with, and the distance (in doublings of a side) within which all count alike.
_NEAREST = 6
_NEAR = 0.5
_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
# The corner between host and card, as in `ftbench.estimation.kernel_time`.
_HOST_CORNER = 6.0


@dataclasses.dataclass(frozen=True)
class PassSeconds:
    """The seconds of a pass and of its parts; `host` is beside the card, or on top of the others on a CPU."""

    total: float
    products: float
    memory: float
    attention: float
    host: float


class MeasuredSpeed:
    """The speed of a calibrated device."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._memory = {
            key: _line(
                [(row.nbytes, row.seconds) for row in calibration.memory if _key(row) == key]
            )
            for key in {_key(row) for row in calibration.memory}
        }
        largest = max(_of_kind(calibration, "elementwise"), key=lambda row: row.nbytes)
        self._bandwidth = largest.nbytes / largest.seconds
        self._start_s = min(row.seconds for row in calibration.memory)
        types = dict.fromkeys(row.dtype for row in calibration.products)
        self._products = {dtype: self._of_products(dtype) for dtype in types}
        cases = {(row.dtype, row.backward) for row in calibration.attention}
        self._attention = {
            case: _line(
                [
                    (float(row.flops), row.seconds)
                    for row in calibration.attention
                    if (row.dtype, row.backward) == case
                ]
            )
            for case in cases
        }

    def covers(self, work: PassWork) -> bool:
        """Return whether all types of a pass's products and attention were measured, and every shape is known."""
        kernels = work.by_kernel
        return (
            bool(kernels.products)
            and all(row.dtype in self._products and not row.flops_only for row in kernels.products)
            and all((row.dtype, row.backward) in self._attention for row in kernels.attention)
        )

    def seconds(self, work: PassWork) -> PassSeconds:
        """Return the seconds of a pass that is covered."""
        kernels = work.by_kernel
        products = sum(self.product_seconds(row) * row.count for row in kernels.products)
        attention = sum(self._attention_seconds(row) for row in kernels.attention)
        memory = {
            update: sum(self.memory_seconds(row) for row in kernels.memory if row.update == update)
            for update in (False, True)
        }
        updating = sum(row.kernels for row in kernels.memory if row.update)
        host, others = self._calibration.host, work.kernels - updating
        on_host = others * host.passes_s
        if self._calibration.device.kind == "cpu":
            # A kernel of next to no elements is already in the measured time of every kernel.
            on_host = others * max(0.0, host.passes_s - self._start_s)
            total = products + attention + memory[False] + memory[True] + on_host
            return PassSeconds(total, products, memory[False] + memory[True], attention, on_host)
        starting = updating * host.update_s
        passes = _slower(products + attention + memory[False], on_host)
        total = passes + _slower(memory[True], starting)
        return PassSeconds(
            total, products, memory[False] + memory[True], attention, on_host + starting
        )

    def product_seconds(self, product: Product) -> float:
        """Return the seconds of one product."""
        return self._products[product.dtype](product)

    def memory_seconds(self, row: MemoryKernels) -> float:
        """Return the seconds of all kernels of a row; of a kind that was not measured, as of elementwise ones."""
        line = self._memory.get(_key(row)) or self._memory["elementwise", row.update]
        return line(row.nbytes / row.kernels) * row.kernels if row.kernels else 0.0

    def _attention_seconds(self, row: AttentionCall) -> float:
        line = self._attention[row.dtype, row.backward]
        return line(row.flops / row.count) * row.count

    def _of_products(self, dtype: str) -> Callable[[Product], float]:
        rows = [
            (Product(batch=t.batch, m=t.m, n=t.n, k=t.k, dtype=dtype), t.seconds)
            for t in self._calibration.products
            if t.dtype == dtype
        ]
        peak = max(product.flops / seconds for product, seconds in rows)
        places = np.array([_place(product) for product, _ in rows])

        def ideal(product: Product) -> float:
            b, m, n, k = product.batch, product.m, product.n, product.k
            moved = b * (m * k + k * n + m * n) * _SIZES[dtype]
            return self._start_s + 2 * b * m * n * k / peak + moved / self._bandwidth

        ratios = np.log([seconds / ideal(product) for product, seconds in rows])

        def seconds(product: Product) -> float:
            return ideal(product) * float(np.exp(_interpolated(places, ratios, _place(product))))

        return seconds


def _key(row: MemoryTiming | MemoryKernels) -> tuple[MemoryKind, bool]:
    return row.kind, row.update


def _of_kind(calibration: Calibration, kind: str) -> Iterable[MemoryTiming]:
    return [row for row in calibration.memory if row.kind == kind and not row.update]


def _place(product: Product) -> tuple[float, ...]:
    """Return a product's place among shapes, in doublings of each side."""
    sides = (product.batch, product.m, product.n, product.k)
    return tuple(np.log2(sides).tolist())


def _interpolated(places: Array, values: Array, at: tuple[float, ...]) -> float:
    """Return the mean of the nearest values, weighted by the inverse square of their distance."""
    squares = ((places - np.array(at)) ** 2).sum(axis=1)
    nearest = np.argsort(squares, kind="stable")[:_NEAREST]
    weights = 1 / (squares[nearest] + _NEAR**2)
    return float((weights * values[nearest]).sum() / weights.sum())


def _line(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Return seconds over a size: straight in logarithms between points; beyond the last in proportion to the size.

    Below the first, nothing is less than the first.
    """
    ordered = sorted(points)
    sizes, seconds = np.array(ordered).T

    def at(size: float) -> float:
        if size >= sizes[-1]:
            return float(seconds[-1] * size / sizes[-1])
        return float(np.exp(np.interp(np.log(max(size, 1.0)), np.log(sizes), np.log(seconds))))

    return at


def _slower(card: float, host: float) -> float:
    """Return the time of a card and its host beside each other: the slower one's, with a smooth corner."""
    return float((card**_HOST_CORNER + host**_HOST_CORNER) ** (1 / _HOST_CORNER))
