"""Timing of single operators: the median seconds of one call, on a CPU or on a card."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftbench.worker.measure.operator_bytes import launches, touched

# A measurement is the median of rounds of calls: as many as its time allows, each longer than the clock needs.
_ROUND_S = 0.002
_ROUNDS = 7
_MOST_S = 0.5
_MOST_CALLS = 1000
# The results that are kept: as many bytes as the activations of a small step.
_KEPT_BYTES = 2**26
# A product that keeps a card busy while the host queues a round of calls.
_BLOCKER = 4096
_MOST_BLOCKERS = 16


def seconds_per_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of one call; on a card, of its kernels alone, without the host's part."""
    once = _round(call, 1, device)  # loads libraries, touches memory
    once = min(once, _round(call, 1, device))
    calls = max(1, min(_MOST_CALLS, round(_ROUND_S / max(once, 1e-7))))
    rounds = max(3, min(_ROUNDS, round(_MOST_S / max(once * calls, 1e-7))))
    return statistics.median(_round(call, calls, device) for _ in range(rounds))


def _round(call: Callable[[], object], calls: int, device: torch.device) -> float:
    return _on_card(call, calls) if device.type == "cuda" else _on_cpu(call, calls)


def _on_cpu(call: Callable[[], object], calls: int) -> float:
    """Return the seconds of a call, whose results are kept for a while, as a step keeps its activations.

    A step gives them back together, and the next one has pages that the kernel zeroes anew.
    """
    kept = [call()]
    most = max(1, _KEPT_BYTES // max(1, sum(map(_nbytes, tree_leaves(kept)))))
    began = time.perf_counter()
    for _ in range(calls):
        kept.append(call())
        if len(kept) > most:
            kept.clear()
    return (time.perf_counter() - began) / calls


def _nbytes(leaf: object) -> int:
    return leaf.nbytes if isinstance(leaf, torch.Tensor) else 0


def _on_card(call: Callable[[], object], calls: int) -> float:
    """Return the seconds of a call's kernels: behind more products, or of fewer calls, until the host is ahead."""
    blockers = 1
    seconds, ahead = _queued(call, calls, blockers)
    while not ahead and (blockers < _MOST_BLOCKERS or calls > 1):
        if blockers < _MOST_BLOCKERS:
            blockers *= 2
        else:
            calls = max(1, calls // 4)
        seconds, ahead = _queued(call, calls, blockers)
    return seconds


def _queued(call: Callable[[], object], calls: int, blockers: int) -> tuple[float, bool]:
    """Return the seconds of a call between two events, queued while the card works on other products.

    And whether it still did when the last call was queued: if not, the host's time is among the seconds.
    """
    busy = torch.ones(_BLOCKER, _BLOCKER, device="cuda", dtype=torch.float32)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    for _ in range(blockers):
        torch.mm(busy, busy)
    first.record()
    for _ in range(calls):
        call()
    last.record()
    ahead = not first.query()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1e3 / calls, ahead


class OperatorCounter(TorchDispatchMode):
    """Counts the bytes and the kernels of operators that really run on a device, as a trace counts them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._kind = device.type
        self.nbytes = 0
        self.kernels = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count the tensors that it reads and writes."""
        output = func(*args, **(kwargs or {}))
        found = touched(func, args, kwargs or {}, output, self._is_ours)
        if found is not None:
            self.nbytes += found.nbytes
            on_card = self._kind == "cuda"
            self.kernels += launches(func, args, output) if on_card else len(found.written)
        return output

    def _is_ours(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == self._kind
