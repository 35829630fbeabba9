"""Quantized parameters: bitsandbytes' two classes of parameters, for tensors without data, which cannot be of them.

A parameter gets the attributes that the class would give it, and is quantized by the class's own code in the call
that would do it: when it is moved to the card (`to` and `cuda` of `Params4bit` and `Int8Params`, nn/modules.py).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ftbench.prediction.trace.patches import replaced

Mark = Callable[
    [torch.Tensor], None
]  # called for each tensor that a parameter keeps beside its own
# Called with torch's own `to` of a parameter, the parameter, and the arguments of `to`.
Move = Callable[[Callable[..., torch.Tensor], Any, tuple[Any, ...], dict[str, Any]], torch.Tensor]

# What the classes set if they are not told (`__new__` of both).
_DEFAULTS_4_BITS = {
    "quant_state": None,
    "blocksize": 64,
    "compress_statistics": True,
    "quant_type": "fp4",
    "quant_storage": torch.uint8,
    "module": None,
    "bnb_quantized": False,
}
_DEFAULTS_8_BITS = {"has_fp16_weights": False, "CB": None, "SCB": None}
_MOVE = "_ftbench_move"  # the attribute of a parameter that says how it is moved


class QuantizedParameters:
    """Makes the parameters of one trace, with `bitsandbytes.nn.modules` and `bitsandbytes.functional`."""

    def __init__(self, modules: Any, functional: Any, mark: Mark) -> None:
        self._modules = modules
        self._functional = functional
        self._mark = mark

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedParameters:
        """Return itself: a parameter that is copied, as reference models are, moves as the first one."""
        return self

    def of_4_bits(
        self, _: Any, data: Any = None, requires_grad: bool = False, *rest: Any, **attributes: Any
    ) -> torch.nn.Parameter:
        """Return what `Params4bit(...)` is: packed values with scales, or values that the card will pack."""
        given = _given(_DEFAULTS_4_BITS, rest, attributes)
        made: Any = _parameter(data, requires_grad, given, self._move_4_bits)
        if made.blocksize is None:
            made.blocksize = _DEFAULTS_4_BITS["blocksize"]
        self._mark_states(made)
        return made

    def of_8_bits(
        self, _: Any, data: Any = None, requires_grad: bool = True, *rest: Any, **attributes: Any
    ) -> torch.nn.Parameter:
        """Return what `Int8Params(...)` is."""
        given = _given(_DEFAULTS_8_BITS, rest, attributes)
        made = _parameter(data, requires_grad, given, self._move_8_bits)
        self._mark_states(made)
        return made

    def _move_4_bits(
        self, to: Callable[..., torch.Tensor], moved: Any, args: tuple[Any, ...], kwargs: Any
    ) -> torch.Tensor:
        device = _device(args, kwargs)
        if _is_place(device) and not moved.bnb_quantized:
            return self._quantized(self._modules.Params4bit, moved, device)
        if moved.quant_state is not None:
            moved.quant_state.to(device)
        there = to(*args, **kwargs)
        attributes = {name: getattr(moved, name) for name in _DEFAULTS_4_BITS if name != "module"}
        return self.of_4_bits(None, there, moved.requires_grad, **attributes)

    def _move_8_bits(
        self, to: Callable[..., torch.Tensor], moved: Any, args: tuple[Any, ...], kwargs: Any
    ) -> torch.Tensor:
        device = _device(args, kwargs)
        done = moved.dtype == torch.int8
        on_host = moved.device.type == "cpu"
        full = moved.has_fp16_weights
        if not done and _is_place(device) and on_host and not full:
            return self._quantized(self._modules.Int8Params, moved, device)
        there = to(*args, **kwargs)
        made: Any = self.of_8_bits(None, there, moved.requires_grad, has_fp16_weights=full)
        if done:
            made.CB = made.data
            made.SCB = moved.SCB if moved.SCB is None or device is None else moved.SCB.to(device)
            self._mark_states(made)
        return made

    def from_prequantized(
        self,
        data: torch.Tensor,
        quantized_stats: dict[str, Any],
        requires_grad: bool = False,
        device: Any = "cuda",
        module: Any = None,
        **_: Any,
    ) -> torch.nn.Parameter:
        """Return what `Params4bit.from_prequantized` does: a weight that a checkpoint has in 4 bits."""
        state = self._functional.QuantState.from_dict(qs_dict=quantized_stats, device=device)
        if module is not None:
            module.quant_state = state
        return self.of_4_bits(
            None,
            data.to(device),
            requires_grad,
            quant_state=state,
            blocksize=state.blocksize,
            compress_statistics=state.nested,
            quant_type=state.quant_type,
            quant_storage=data.dtype,
            module=module,
            bnb_quantized=True,
        )

    def _quantized(self, kind: Any, moved: Any, device: Any) -> torch.nn.Parameter:
        kind._quantize(moved, device)
        self._mark_states(moved)
        return moved

    def _mark_states(self, made: torch.nn.Parameter) -> None:
        attributes = vars(made)
        for tensor in (
            *_tensors_of(attributes.get("quant_state")),
            *(attributes.get(name) for name in ("CB", "SCB")),
        ):
            if isinstance(tensor, torch.Tensor):
                self._mark(tensor)


@contextlib.contextmanager
def parameters_move() -> Iterator[None]:
    """Let `tensor.to`, and thereby `cuda`, move a quantized parameter as its class does."""

    def make(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(original)
        def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            move = vars(tensor).get(_MOVE)
            if move is None:
                return original(tensor, *args, **kwargs)
            moved: torch.Tensor = move(functools.partial(original, tensor), tensor, args, kwargs)
            return moved

        return to

    with replaced(torch.Tensor, "to", make):
        yield


def _given(
    defaults: dict[str, Any], rest: tuple[Any, ...], attributes: dict[str, Any]
) -> dict[str, Any]:
    """Return the values that a class keeps; it drops others, such as all that transformers finds in a parameter."""
    known = {name: value for name, value in attributes.items() if name in defaults}
    return defaults | dict(zip(defaults, rest, strict=False)) | known


def _parameter(
    data: torch.Tensor | None, requires_grad: bool, attributes: dict[str, Any], move: Move
) -> torch.nn.Parameter:
    """Return a parameter with the attributes of its class, and how it is moved."""
    given = torch.empty(0) if data is None else data
    made = torch.nn.Parameter(given, requires_grad=requires_grad)
    for name, value in (attributes | {_MOVE: move}).items():
        setattr(made, name, value)
    return made


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the device that the arguments of `to` name; None if they name none."""
    return torch._C._nn._parse_to(*args, **kwargs)[0]


def _is_place(device: torch.device | None) -> bool:
    return device is not None and device.type != "meta"


def _tensors_of(state: Any) -> Iterator[Any]:
    """Yield the scales of a quantized weight, and theirs (`QuantState` in bitsandbytes/functional.py)."""
    if state is not None:
        yield from (state.absmax, state.code, state.offset)
        yield from _tensors_of(state.state2)
