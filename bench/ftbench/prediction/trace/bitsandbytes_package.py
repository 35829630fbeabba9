"""The package bitsandbytes in a trace: its own Python runs, and only what needs its CUDA library is replaced.

Its kernels are operators that torch can run without data (bitsandbytes/_ops.py), so 8-bit states and quantized
weights are allocated by the package itself. Replaced are, by names in bitsandbytes 0.50.2:

    functional.create_dynamic_map    reads values; 256 float32 on the host here too (functional.py 296)
    functional.name2qmap             a process's maps by name: each trace has its own (functional.py 22)
    functional.get_paged             CUDA's managed memory (functional.py 91): counted apart, see below
    functional.fill, prefetch_tensor writes and moves of managed memory: nothing
    nn.modules.Params4bit.__new__    a class of tensors, which tensors without data cannot be of (nn/modules.py 212)
    nn.modules.Int8Params.__new__    the same (nn/modules.py 719)
    functional.int8_vectorwise_quant, int8_mixed_scaled_mm    sizes that depend on data: `eight_bit_products`
    optim.optimizer.sync_gpu         waits for the card: nothing (optimizer.py 319)
    GlobalOptimManager, GlobalPageManager   process-wide: each trace has its own

For a parameter of n elements, AdamW in 8 bits keeps (optim/optimizer.py 436, `init_state`):

    n < 4096, or an embedding    state1 and state2, n float32 each (transformers' trainer.py 1328: embeddings)
    otherwise                    state1 and state2, n bytes each; absmax1 and absmax2, ceil(n / 256) float32 each
    once per optimizer           qmap1 and qmap2, 256 float32 each

A weight of n elements in NF4, with double quantization, takes (functional.py 890, `quantize_4bit`):

    packed values    n / 2 bytes            absmax of blocks of 64           n / 64 bytes
    code             16 float32             absmax of blocks of 256 of those n / 16384 float32
    offset           1 float32              code of those                    256 float32

A weight of o outputs and k inputs in 8 bits takes o * k bytes (`CB`) and o float32 (`SCB`); nn/modules.py 737. Its
backward pass makes it whole in the type of the inputs, for a moment (autograd/_functions.py 237).

The states of paged optimizers with 100,000 elements or more (optimizer.py 351) lie in managed memory. The
caching allocator knows nothing of it; the driver moves it to the host if the card is full.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from ftbench.base.errors import PredictionError
from ftbench.base.units import format_bytes
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.eight_bit_products import MOST_OUTLIER_COLUMNS, EightBitProducts
from ftbench.prediction.trace.quantized_parameters import QuantizedParameters, parameters_move
from ftbench.prediction.trace.weight_files import text_of
from ftbench.records.prediction import CellPrediction

if TYPE_CHECKING:
    from ftbench.prediction.trace.tracer_mode import Tracer

# Values of `optim` whose optimizers are those of bitsandbytes (transformers' trainer_optimizer.py).
BITSANDBYTES_OPTIMIZERS = (
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "paged_ademamix_32bit",
)
_QUANTILES = 256


def load_bitsandbytes(where: str, got: str) -> None:
    """Import bitsandbytes before a trace; raises PredictionError if it is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PredictionError(
            "this needs the package bitsandbytes, which is not installed; a card is not needed",
            where=where,
            got=got,
            hint="python -m pip install 'ftbench[bitsandbytes]'",
        )
    importlib.import_module("bitsandbytes")


@contextlib.contextmanager
def imported_bitsandbytes_on_card(tracer: Tracer) -> Iterator[None]:
    """Let bitsandbytes run in a trace as on a card, if the traced code's file has imported it."""
    if "bitsandbytes" not in sys.modules:
        yield
        return
    with bitsandbytes_on_card(tracer):
        yield


@contextlib.contextmanager
def bitsandbytes_on_card(
    tracer: Tracer, outlier_columns: int = MOST_OUTLIER_COLUMNS
) -> Iterator[None]:
    """Let bitsandbytes run in a trace as on a card; products of 8 bits have so many outlier columns."""
    functional = importlib.import_module("bitsandbytes.functional")
    optimizer = importlib.import_module("bitsandbytes.optim.optimizer")
    modules = importlib.import_module("bitsandbytes.nn.modules")

    def get_paged(_: Any) -> Any:
        return lambda *shape, dtype=torch.float32, device=None: _managed(tracer, shape, dtype)

    parameters = QuantizedParameters(modules, functional, tracer.mark_parameter)
    products = EightBitProducts(outlier_columns)
    operators = torch.ops.bitsandbytes
    with contextlib.ExitStack() as stack:
        for owner, name, make in (
            (functional, "create_dynamic_map", lambda _: _dynamic_map),
            (functional, "get_paged", get_paged),
            (functional, "fill", lambda _: _nothing),
            (functional, "prefetch_tensor", lambda _: _nothing),
            (functional, "name2qmap", lambda _: {}),
            (modules.Params4bit, "__new__", lambda _: staticmethod(parameters.of_4_bits)),
            (modules.Params4bit, "from_prequantized", lambda _: parameters.from_prequantized),
            (
                functional,
                "unpack_tensor_to_dict",
                lambda _: lambda tensor: json.loads(text_of(tensor)),
            ),
            (modules.Int8Params, "__new__", lambda _: staticmethod(parameters.of_8_bits)),
            (functional, "int8_vectorwise_quant", lambda _: products.quantize),
            (operators, "int8_mixed_scaled_mm", lambda _: products.multiply),
            (optimizer, "sync_gpu", lambda _: _nothing),
            (optimizer.GlobalOptimManager, "_instance", lambda _: None),
            (functional.GlobalPageManager, "_instance", lambda _: None),
        ):
            stack.enter_context(patches.replaced(owner, name, make))
        stack.enter_context(parameters_move())
        yield


def _dynamic_map(*_: Any, **__: Any) -> torch.Tensor:
    return torch.empty(_QUANTILES, dtype=torch.float32, device="cpu")


def _managed(tracer: Tracer, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in managed memory, marked as the package marks it; the card's allocator has no part in it."""
    made = torch.empty(shape, dtype=dtype, device="cpu")
    made.is_paged, made.page_deviceid = True, 0  # type: ignore[attr-defined]
    tracer.count_managed(made.nbytes)
    return made


def _nothing(*_: Any, **__: Any) -> None:
    return None


def managed_notes(predictions: Iterable[CellPrediction]) -> tuple[str, ...]:
    """Return a note on managed memory if a prediction has some."""
    most = max((one.managed_bytes for one in predictions), default=0)
    if not most:
        return ()
    return (
        f"paged optimizers keep up to {format_bytes(most)} of state in managed memory, beside all figures: it takes"
        " room on the card while there is some, and else on the host",
    )
