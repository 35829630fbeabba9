"""The fake mode of a trace: torch's own, with its cache of results asked and answered in a third of the time.

`FakeTensorMode` keeps the shape, strides and type of each result, so that it runs an operator once for equal
arguments. Much of a trace's time went into asking that cache: torch describes every argument by 17 values, each
found by a generic function. Here a key has the values that tell tensors of a trace apart, and a result is made
without the checks that the constructor of a fake tensor makes. All else is torch's: what may be cached, and how it
is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    _BypassDispatchCache,
    _DispatchCacheKey,
    in_kernel_invocation_manager,
)

# Values that are equal only if they have the same meaning to every operator, together with their type.
_VALUES = frozenset(
    {
        *(int, float, bool, complex, str, type(None)),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    }
)
# The form of what the cache keeps. Older versions of torch have another one, and are asked in their own way.
_Entry = getattr(fake_tensor, "_DispatchCacheValidEntry", None)
_SEQUENCES = frozenset({list, tuple, torch.Size})
_FAKE = torch._C._TorchDispatchModeKey.FAKE
_empty_strided = torch.empty_strided  # as it is outside of traces, which replace the name


class TraceFakes(FakeTensorMode):
    """The fake mode of all tensors in a trace, also of a module that is copied, as peft copies heads."""

    def __init__(self) -> None:
        super().__init__()
        self._attributes: dict[str, Any] = {}  # of a fake tensor, but for its mode and its device

    def __deepcopy__(self, memo: dict[int, Any]) -> TraceFakes:
        return self

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return an operator's result, from the cache if it is there: torch's dispatcher takes as long again."""
        if (
            _Entry is not None and torch._C._get_dispatch_mode(_FAKE) is self
        ):  # else traced code uses a mode of its own
            key = self._key(func, args, kwargs)
            entry = None if key is None else self.cache.get(key)
            if isinstance(entry, _Entry):
                return self._output_from_cache_entry(None, entry, key, func, args)
        return func(*args, **kwargs)

    def _cache_key(self, state: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the key of torch's cache of results; with a storage in it, the cache would keep that alive."""
        if func is torch.ops.aten.set_.source_Storage_storage_offset:
            raise _BypassDispatchCache("an argument is a storage")
        key = None if _Entry is None else self._key(func, args, kwargs)
        return super()._cache_key(state, func, args, kwargs) if key is None else key

    def _key(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the key of an operator's result, None if an argument is of a kind that is not known here."""
        parts: list[Any] = [
            TraceFakes,
            func,
            torch.get_default_dtype(),
            torch._C._get_default_device(),
            torch.is_inference_mode_enabled(),
        ]
        if self._described(parts, args) and self._described(parts, (*kwargs, *kwargs.values())):
            return _DispatchCacheKey(tuple(parts))
        return None

    def _described(self, parts: list[Any], arguments: Iterable[Any]) -> bool:
        """Append what tells arguments apart; return whether all are of kinds that are known here."""
        for one in arguments:
            kind = type(one)
            parts.append(kind)
            if kind is FakeTensor:
                if (
                    one.fake_mode is not self
                    or one.constant is not None
                    or one.layout is not torch.strided
                ):
                    return False
                parts += (
                    one.dtype,
                    one.shape,
                    one.stride(),
                    one.storage_offset(),
                    one.untyped_storage().nbytes(),
                    one.fake_device,
                    one.requires_grad,
                    one.is_conj(),
                    one.is_neg(),
                    one.is_inference(),
                )
            elif kind in _VALUES:
                parts.append(one)
            elif kind in _SEQUENCES:
                parts.append(len(one))
                if not self._described(parts, one):
                    return False
            else:
                return False
        return True

    def _get_output_tensor_from_cache_entry(self, *asked: Any) -> Any:
        """Return a new tensor as the cache describes it."""
        if _Entry is None:
            return super()._get_output_tensor_from_cache_entry(*asked)
        _, entry, _, _, args = asked
        found = entry.metadata
        if found is None or found.is_conj or found.is_neg or found.layout is not torch.strided:
            return super()._get_output_tensor_from_cache_entry(*asked)
        with in_kernel_invocation_manager(self):
            made = _empty_strided(
                found.shape,
                found.stride,
                dtype=found.dtype,
                device="meta",
                requires_grad=found.requires_grad,
            )
            if entry.view_idx is not None:
                storage = args[entry.view_idx].untyped_storage()
                made.set_(storage, found.storage_offset, found.shape, found.stride)
        return self._fake(made, found.device)

    def _fake(self, meta: torch.Tensor, device: torch.device) -> FakeTensor:
        """Return the fake tensor of a meta tensor, as `FakeTensor(self, meta, device)` makes it."""
        if not self._attributes:
            first = FakeTensor(self, meta, device)
            own = ("fake_mode", "_fake_device")
            self._attributes = {name: of for name, of in vars(first).items() if name not in own}
            return first
        made: FakeTensor = torch.Tensor._make_subclass(
            FakeTensor,
            meta,
            meta.requires_grad,
            dispatch_device=True,
            device_for_backend_keys=device,
        )
        torch._C._set_warn_deprecated_on_mutable_data_ptr(made)
        vars(made).update(self._attributes, fake_mode=self, _fake_device=device)
        return made
