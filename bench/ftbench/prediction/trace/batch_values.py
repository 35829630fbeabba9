"""The values of tensors that follow from the batch alone: masks, positions, labels, token counts.

A trace has no data, but a model may read a mask or count tokens, and make tensors of a size that depends on the
answer. Several different batches of the traced shape (`example_batches`) are followed beside the trace: each
operator whose tensors are all known runs on the values of every one of them. An answer holds only if it is the same
for all of them; what depends on one document's words, or on how much padding it has, has no answer.

Large values, such as masks of every pair of tokens, are computed when they are asked for, which they seldom are.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

aten = torch.ops.aten

# The values of one tensor, in every batch that is followed.
Values = tuple[torch.Tensor, ...]
# Returns values when they are asked for; None if there are none after all.
Later = Callable[[], Values | None]

# Larger tensors are not followed: at this size an operator takes some hundredths of a second per batch.
_MOST_ELEMENTS = 2**24
# The values of larger tensors, and all that follows from them, are computed when they are asked for.
_MOST_AT_ONCE = 2**16
_RANDOM = torch.Tag.nondeterministic_seeded
# Deferred values that follow from so many others are computed: each is a few calls deep.
_DEEPEST = 50
# Operators without tensors as arguments, whose results are known.
_CONSTANTS = frozenset(
    {
        aten.arange.default,
        aten.arange.start,
        aten.arange.start_step,
        aten.full.default,
        aten.linspace.default,
        aten.ones.default,
        aten.scalar_tensor.default,
        aten.zeros.default,
    }
)
# Operators that replace all that a tensor had before.
_FILLS = frozenset({aten.copy_.default, aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default})
_LIFTS = frozenset({aten.lift_fresh.default, aten.lift_fresh_copy.default})


class BatchValues:
    """Follows the values of tensors, by their storages. Tensors that were never known have no values."""

    def __init__(self) -> None:
        # A storage -> its values, one flat tensor per batch.
        self._storages: dict[int, Values | _Deferred] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._batches = 0

    @property
    def known(self) -> bool:
        """Return whether the values of a batch were noted."""
        return self._batches > 0

    def close(self) -> None:
        """Forget all values."""
        self._storages.clear()
        self._watched.clear()

    def know(self, tensor: torch.Tensor, values: Sequence[torch.Tensor]) -> None:
        """Note a tensor's values in every batch; all tensors have values of the same number of batches."""
        self._batches = len(values)
        # torch made it as a constant, of the values of one batch.
        self._storages.pop(tensor.untyped_storage()._cdata, None)
        self._keep(tensor, tuple(values))

    def of(self, tensor: torch.Tensor) -> Values | None:
        """Return a tensor's values in every batch; None if they are not known."""
        with _disable_current_modes():
            return self._of(tensor)

    def _of(self, tensor: torch.Tensor) -> Values | None:
        """Return a tensor's values, where no mode is active: turning modes off takes longer than the rest."""
        later = self._later(tensor)
        return None if later is None else later()

    def _later(self, tensor: torch.Tensor) -> Later | None:
        """Return a function for the values that a tensor has now; None if they are not known."""
        if not isinstance(tensor, FakeTensor):
            real = (tensor,) * self._batches
            return lambda: real
        kept = self._storages.get(tensor.untyped_storage()._cdata)
        if kept is None:
            constant = tensor.constant  # of a Python number in arithmetic, which torch knows itself
            copies = None if constant is None else self._copies(constant)
            return None if copies is None else lambda: copies
        dtype, *layout = _layout(tensor)

        def views() -> Values | None:
            bases = kept.values() if isinstance(kept, _Deferred) else kept
            return bases and tuple(
                torch.empty(0, dtype=dtype, device="cpu").set_(base.untyped_storage(), *layout)
                for base in bases
            )

        return views

    def _copies(self, constant: torch.Tensor) -> Values:
        """Return a constant for each batch; copies, since an operator may write to them."""
        with _disable_current_modes():
            return tuple(constant.clone() for _ in range(self._batches))

    def numbers(self, scalar: torch.Tensor) -> set[bool | int | float]:
        """Return the different values that a scalar has in the batches; none if they are not known."""
        values = self.of(scalar)
        with _disable_current_modes():
            return {value.item() for value in values or ()}

    def follow(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Run an operator on the values of its arguments, once it has run without; forget what is overwritten."""
        if not self._batches:
            return
        if func in _FILLS and self._refilled(func, args):
            return
        writes = func._schema.is_mutable
        if not self._followed(func, _tensors_of((*args, *kwargs.values()))):
            if writes:
                self._forget_written(func, args, kwargs)
            return
        if func in _LIFTS:  # torch writes to a constant's data itself
            self._keep(output, self._copies(args[0]))
            return
        if writes:
            self._settle()
        elif self._is_deferred(args, kwargs, output):
            self._defer(func, args, kwargs, output)
            return
        results = self.results(func, args, kwargs) or ()
        if not results and writes:
            self._forget_written(func, args, kwargs)
        for place, tensor in enumerate(tree_leaves(output)):
            if results and isinstance(tensor, FakeTensor):
                self._keep(tensor, tuple(tree_leaves(result)[place] for result in results))

    def results(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, ...] | None:
        """Return an operator's results in every batch; None if an argument is not known, or the operator fails."""
        if not self._batches:
            return None
        later = self._results_later(func, args, kwargs)
        return None if later is None else later()

    def _results_later(
        self, func: Any, args: Any, kwargs: Any
    ) -> Callable[[], tuple[Any, ...] | None] | None:
        """Return a function that runs an operator on the values that its arguments have now; None without them."""
        leaves, structure = tree_flatten((args, kwargs))
        batches = self._batches
        with _disable_current_modes():
            known = [
                self._later(leaf)
                if isinstance(leaf, torch.Tensor)
                else functools.partial(_repeated, _on_host(leaf), batches)
                for leaf in leaves
            ]
        if any(later is None for later in known):
            return None

        def results() -> tuple[Any, ...] | None:
            with _disable_current_modes(), torch.no_grad():
                values = [later() for later in known if later is not None]
                if any(of is None for of in values):
                    return None
                try:
                    return tuple(
                        _run(func, tree_unflatten([of[batch] for of in values if of], structure))
                        for batch in range(batches)
                    )
                except Exception:  # the step itself raises what is to be raised
                    return None

        return results

    def _is_deferred(self, args: Any, kwargs: Any, output: Any) -> bool:
        """Return whether the values of an operator's results are computed when they are asked for."""
        made = [leaf for leaf in tree_leaves(output) if isinstance(leaf, FakeTensor)]
        large = sum(tensor.numel() for tensor in made) > _MOST_AT_ONCE
        return large or self._depth(args, kwargs) > 0

    def _depth(self, args: Any, kwargs: Any) -> int:
        """Return the depth of the deferred values among arguments; 0 if there are none."""
        tensors = _tensors_of((*args, *kwargs.values()))
        fakes = [one for one in tensors if isinstance(one, FakeTensor)]
        kept = [self._storages.get(one.untyped_storage()._cdata) for one in fakes]
        return max((one.depth for one in kept if isinstance(one, _Deferred)), default=0)

    def _defer(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        later = self._results_later(func, args, kwargs)
        if later is None:
            return
        results, depth = functools.cache(later), 1 + self._depth(args, kwargs)
        for place, tensor in enumerate(tree_leaves(output)):
            if isinstance(tensor, FakeTensor) and tensor.numel() <= _MOST_ELEMENTS:
                deferred = _Deferred(results, place, tensor, depth % _DEEPEST)
                self._note(tensor, deferred)
                if depth == _DEEPEST:  # its values begin anew
                    deferred.values()

    def _settle(self) -> None:
        """Compute all values that are not yet: an operator is going to write to some that they follow from."""
        for values in list(self._storages.values()):
            if isinstance(values, _Deferred):
                values.values()

    def _followed(self, func: Any, tensors: Sequence[torch.Tensor]) -> bool:
        if not tensors:
            return func in _CONSTANTS
        if func in _LIFTS:
            return True
        keys = self._storages
        known = all(
            isinstance(tensor, FakeTensor)
            and (tensor.untyped_storage()._cdata in keys or tensor.constant is not None)
            for tensor in tensors
        )
        return known and _RANDOM not in func.tags

    def _refilled(self, func: Any, args: Any) -> bool:
        """Return whether an operator replaced a whole storage by known values, which are noted."""
        target, *source = args
        if not isinstance(target, FakeTensor) or not _whole(target):
            return False
        sources = [self.of(leaf) for leaf in source if isinstance(leaf, torch.Tensor)]
        if target.numel() > _MOST_ELEMENTS or any(values is None for values in sources):
            return False
        made = []
        with _disable_current_modes(), torch.no_grad():
            for batch in range(self._batches):
                value = torch.empty_strided(
                    target.size(), target.stride(), dtype=target.dtype, device="cpu"
                )
                rest = [values[batch] for values in sources] or source  # type: ignore[index]
                made.append(func(value, *rest))
        self._storages.pop(target.untyped_storage()._cdata, None)
        self._keep(target, tuple(made))
        return True

    def _forget_written(self, func: Any, args: Any, kwargs: Any) -> None:
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            for leaf in tree_leaves(value):
                if isinstance(leaf, torch.Tensor):
                    self._storages.pop(leaf.untyped_storage()._cdata, None)

    def _keep(self, tensor: torch.Tensor, values: Values) -> None:
        layout = _layout(tensor)
        if all(_laid_out_as(layout, value) for value in values):
            self._note(tensor, values)

    def _note(self, tensor: torch.Tensor, values: Values | _Deferred) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:  # a view, or the result of an operator in place
            return
        self._storages[key] = values

        def freed(_: Any) -> None:
            self._storages.pop(key, None)
            self._watched.pop(key, None)

        self._watched[key] = weakref.ref(storage, freed)


class _Deferred:
    """The values of one of an operator's results, which are computed when they are first asked for."""

    def __init__(
        self,
        results: Callable[[], tuple[Any, ...] | None],
        place: int,
        tensor: torch.Tensor,
        depth: int,
    ) -> None:
        """Make the values of the result at this place among all; they must be laid out as this tensor is.

        `depth` is the number of values, each computed from the one before, that may have to be computed first.
        """
        self._results: Callable[[], tuple[Any, ...] | None] | None = results
        self._place = place
        self._layout = _layout(tensor)
        self._values: Values | None = None
        self.depth = depth

    def values(self) -> Values | None:
        """Return the values; None if the operator fails on them, or lays them out in another way."""
        if self._results is not None:
            results = self._results()
            self._results = None  # with it go the values that only these follow from
            values = tuple(tree_leaves(result)[self._place] for result in results or ())
            if results and all(_laid_out_as(self._layout, value) for value in values):
                self._values = values
        return self._values


def _run(func: Any, arguments: Any) -> Any:
    args, kwargs = arguments
    return func(*args, **kwargs)


def _repeated(value: Any, times: int) -> tuple[Any, ...]:
    return (value,) * times


def _tensors_of(arguments: tuple[Any, ...]) -> list[torch.Tensor]:
    """Return the tensors among an operator's arguments, which are tensors, or lists of them."""
    leaves: list[Any] = []
    for one in arguments:
        if isinstance(one, (list, tuple)):
            leaves += one
        else:
            leaves.append(one)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _on_host(leaf: Any) -> Any:
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _whole(tensor: torch.Tensor) -> bool:
    size: int = tensor.untyped_storage().nbytes()
    return tensor.is_contiguous() and tensor.numel() * tensor.element_size() == size


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride()


def _laid_out_as(layout: tuple[Any, ...], value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.numel() <= _MOST_ELEMENTS
        and value.untyped_storage().nbytes() <= _MOST_ELEMENTS * value.element_size()
        and _layout(value) == layout
    )
