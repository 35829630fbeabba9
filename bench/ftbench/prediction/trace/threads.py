"""Threads: a trace watches the one it runs in, and refuses tensors of the card in others.

Their order of allocations would differ from run to run, and with it the peak.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftbench.prediction.trace.patches import replaced

Refuse = Callable[[str], None]  # raises if called in another thread; takes the operator


@contextlib.contextmanager
def other_threads_refused(refuse: Refuse) -> Iterator[None]:
    """Call `refuse` for operators on tensors of the trace or of the card in threads other than this one."""
    running = True

    class Guard(TorchDispatchMode):
        """The tensors of a thread that began during the trace."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if running and (_on_card(kwargs.get("device")) or _any_fake(args, kwargs)):
                refuse(str(func))
            return func(*args, **kwargs)

    def guarded(original: Any) -> Any:
        def bootstrap(thread: threading.Thread) -> None:
            with Guard():
                original(thread)

        return bootstrap

    def of_this_thread(original: Any) -> Any:
        # Called without a mode only: in a thread that was there before the trace.
        def dispatch(
            cls: type, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            refuse(str(func))
            return original(func, types, args, kwargs)

        return classmethod(dispatch)

    with (
        replaced(threading.Thread, "_bootstrap_inner", guarded),
        replaced(FakeTensor, "__torch_dispatch__", of_this_thread),
    ):
        try:
            yield
        finally:
            running = False


def _on_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _any_fake(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
