"""Packages whose kernels run on cards only, as a cell's trace needs them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from ftbench.base.errors import PredictionError
from ftbench.plan.cell import Cell
from ftbench.prediction.trace.bitsandbytes_package import (
    BITSANDBYTES_OPTIMIZERS,
    bitsandbytes_on_card,
    load_bitsandbytes,
)
from ftbench.prediction.trace.flash_attention import FLASH_ATTENTION_2
from ftbench.prediction.trace.flash_attention_package import flash_attention_installed
from ftbench.prediction.trace.liger_package import liger_on_card, require_liger
from ftbench.prediction.trace.target import Target
from ftbench.prediction.trace.tracer_mode import Tracer

# Optimizers of the package lomo-optim, which update a parameter as soon as its gradient is there.
LOMO_OPTIMIZERS = ("lomo", "adalomo")
_OF_BITSANDBYTES = ("training.optim", "quantization")

_LIGER = "training.use_liger_kernel"


def load_packages(cell: Cell, target: Target) -> None:
    """Import the packages that a cell needs, before its trace.

    Raises PredictionError for one that is not installed, and for a trace of a processor, for which their kernels
    are other ones.
    """
    optimizer = cell.settings.get("optim")
    if optimizer in LOMO_OPTIMIZERS and importlib.util.find_spec("lomo_optim") is None:
        raise PredictionError(
            "this optimizer needs the package lomo-optim, which is not installed",
            where="training.optim",
            got=optimizer,
            hint="python -m pip install lomo-optim",
        )
    for where, value in _needs(cell).items():
        if target.device == "cpu":
            raise PredictionError("this is traced as on a card only", where=where, got=value)
        if where in _OF_BITSANDBYTES:
            load_bitsandbytes(where, value)
        if where == _LIGER:
            require_liger(where, value)


@contextlib.contextmanager
def packages_on_card(cell: Cell, target: Target, tracer: Tracer) -> Iterator[None]:
    """Let the packages that a cell needs work in a trace, each with its kernels replaced or emulated."""
    needs = _needs(cell)
    with contextlib.ExitStack() as stack:
        if "attn_implementation" in needs:
            stack.enter_context(flash_attention_installed(target.compute_capability, target.tokens))
        if not needs.keys().isdisjoint(_OF_BITSANDBYTES):
            stack.enter_context(bitsandbytes_on_card(tracer, target.outlier_columns))
        if _LIGER in needs:
            stack.enter_context(liger_on_card(tracer, target))
        yield


def _needs(cell: Cell) -> dict[str, str]:
    """Return the settings of a cell that need such a package, with their values."""
    found = {}
    if cell.attn_implementation in FLASH_ATTENTION_2:
        found["attn_implementation"] = cell.attn_implementation
    optimizer = str(cell.settings.get("optim"))
    if optimizer in BITSANDBYTES_OPTIMIZERS:
        found["training.optim"] = optimizer
    if cell.quantization != "none":
        found["quantization"] = cell.quantization
    if cell.settings.get("use_liger_kernel"):
        found[_LIGER] = "True"
    return found
