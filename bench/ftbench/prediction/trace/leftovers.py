"""Leftovers: tensors of a trace that caches and tables of the traced code would keep after it.

A helper's `lru_cache` or a module's table would hand them to the next trace, or to an ordinary run, where they
have no data. Caches that hold one are cleared, entries of tables are taken out, and module attributes get their
value of before the trace. Anything else that would outlive the trace raises a PredictionError that says where
it hangs.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import random
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.patches import default_device, replaced

_MOST_OBJECTS = 50_000  # of a search for what holds a tensor
_ROUNDS = 20  # each takes out what it found; a tensor may hang in several places
_STATES = ("PartialState", "AcceleratorState", "GradientState")


class Surroundings:
    """What a trace must leave as it was: attributes of modules, and accelerate's states."""

    def __init__(self) -> None:
        self._attributes = {name: dict(vars(module)) for name, module in _modules()}
        self._states = {id(state): dict(state._shared_state) for state in _accelerate_states()}
        self._asked: dict[types.CodeType, dict[str, Any]] = {}

    def ask(self) -> None:
        """Note which functions are running: their results may depend on an answer of the trace."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            self._asked[frame.f_code] = frame.f_globals
            frame = frame.f_back

    def restore(self) -> None:
        """Clear caches of functions that asked, and restore devices in modules and accelerate's states."""
        for code, namespace in self._asked.items():
            clear = getattr(_named(code.co_qualname, namespace), "cache_clear", None)
            if callable(clear):
                clear()
        for state in _accelerate_states():
            state._shared_state.clear()
            state._shared_state.update(self._states.get(id(state), {}))
        for module_name, module in _modules() if self._asked else ():
            for name, value in list(vars(module).items()):
                if type(value) is torch.device and value.type == "cuda":
                    self.restore_attribute(module_name, name)

    def restore_attribute(self, module: str, name: str) -> bool:
        """Give a module's attribute its value of before; return whether it had another."""
        namespace = vars(sys.modules[module])
        before = self._attributes.get(module)
        if before is None:  # a module that the trace imported
            return namespace.pop(name, None) is not None
        if name not in before:
            del namespace[name]
            return True
        changed = namespace[name] is not before[name]
        namespace[name] = before[name]
        return changed


def _modules() -> list[tuple[str, types.ModuleType]]:
    return [
        (name, module)
        for name, module in list(sys.modules.items())
        if isinstance(module, types.ModuleType) and name.partition(".")[0] != "torch"
    ]


def _accelerate_states() -> Iterator[Any]:
    module = sys.modules.get("accelerate.state")
    if module is not None:
        yield from (getattr(module, name) for name in _STATES)


def _named(path: str, namespace: dict[str, Any]) -> Any:
    """Return what a qualified name stands for; None for a function inside another."""
    first, *rest = path.split(".")
    found = namespace.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def survivors(mode: FakeTensorMode) -> list[FakeTensor]:
    """Return the tensors of a trace that are left. Call it before objects older than the trace are thawed."""
    gc.collect()
    return [
        one
        for one in gc.get_objects()
        if type(one) is FakeTensor and getattr(one, "fake_mode", None) is mode
    ]


def take_out(left: list[FakeTensor], surroundings: Surroundings) -> list[str]:
    """Take tensors out of caches, tables and attributes; return the places from which they cannot be taken."""
    for _ in range(_ROUNDS):
        search = Search(left)
        if not search.found:
            return []
        if not sum(_taken(place, surroundings) for place in search.found):
            return sorted({place.name for place in search.found})
    return []


def hanging_from(tensor: torch.Tensor) -> str:
    """Return where an object of the running program hangs, in words; empty if it is not known."""
    return "; ".join(sorted({place.name for place in Search([tensor]).found}))


class Place:
    """Something that outlives a trace and leads to a tensor: its name, and the way, the tensor last."""

    def __init__(self, name: str, way: list[Any], module: str = "", attribute: str = "") -> None:
        self.name, self.way = name, way
        self.module, self.attribute = module, attribute


def _taken(place: Place, surroundings: Surroundings) -> bool:
    """Take a tensor out of a place; return whether that was possible."""
    first = place.way[0]
    if isinstance(first, functools._lru_cache_wrapper):
        first.cache_clear()
        return True
    if place.module and surroundings.restore_attribute(place.module, place.attribute):
        return True
    owned = {id(namespace) for one in place.way for namespace in _namespaces(one)}
    for owner, table, inside in zip([None, *place.way], place.way, place.way[1:], strict=False):
        # The dictionary of a class is right below it; Python shows a proxy of it.
        if isinstance(table, dict) and id(table) not in owned and not isinstance(owner, type):
            for key in [key for key, value in table.items() if value is inside or key is inside]:
                del table[key]
            return True
    return False


def _namespaces(owner: Any) -> list[Any]:
    """Return the dictionaries in which an object has its attributes: no tables."""
    found = [getattr(owner, "__dict__", None)]
    if isinstance(owner, torch.nn.Module):
        found += [owner._parameters, owner._buffers, owner._modules]
    return found


class Search:
    """Finds the caches, module attributes and classes through which objects are reached, the nearest ones."""

    def __init__(self, targets: list[Any]) -> None:
        self.found: list[Place] = []
        self._below: dict[int, Any] = {}  # an object -> what it holds, on the way to a target
        self._namespaces = {id(vars(module)): (name, vars(module)) for name, module in _modules()}
        kept = [*targets]  # not the caller's list, which refers to them as well
        self._ignored = {id(targets), id(self._below), id(kept)}
        self._seen = {id(one) for one in targets}
        frontier: list[Any] = kept
        while frontier and not self.found and len(self._seen) < _MOST_OBJECTS:
            self._ignored.add(id(frontier))
            frontier = self._above(frontier)

    def _above(self, frontier: list[Any]) -> list[Any]:
        """Note the places among the referrers of some objects, and return the other referrers."""
        ids = {id(one): one for one in frontier}
        self._ignored.add(id(ids))
        above: list[Any] = []
        self._ignored.add(id(above))
        for holder in gc.get_referrers(*frontier):
            if id(holder) in self._seen or id(holder) in self._ignored or _passing(holder):
                continue
            self._seen.add(id(holder))
            inside = next((one for one in gc.get_referents(holder) if id(one) in ids), None)
            if inside is None:
                continue
            if id(holder) in self._namespaces:
                self._note_attributes(holder, ids)
                continue
            self._below[id(holder)] = inside
            if isinstance(holder, functools._lru_cache_wrapper):
                self.found.append(
                    Place(f"the lru_cache of {_full_name(holder)}", self._way(holder))
                )
            elif isinstance(holder, type):
                self.found.append(Place(f"the class {_full_name(holder)}", self._way(holder)))
            else:
                above.append(holder)
        return above

    def _note_attributes(self, namespace: dict[str, Any], ids: dict[int, Any]) -> None:
        module, _ = self._namespaces[id(namespace)]
        for name, value in list(namespace.items()):
            if id(value) in ids:
                kind = "the closure of" if isinstance(value, types.FunctionType) else "attribute"
                text = f"{kind} {module}.{name}"
                self.found.append(Place(text, self._way(value), module, name))
        self._seen.discard(id(namespace))  # it may hold other objects as well

    def _way(self, first: Any) -> list[Any]:
        way = [first]
        while id(way[-1]) in self._below:
            way.append(self._below[id(way[-1])])
        self._ignored.add(id(way))
        return way


def _passing(holder: Any) -> bool:
    """Return whether something ends with the call that made it."""
    return isinstance(
        holder, (types.FrameType, types.TracebackType, types.ModuleType, Search, Place)
    )


_PASSING = (types.FrameType, types.TracebackType, types.ModuleType, Surroundings, Search, Place)


def _full_name(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


@contextlib.contextmanager
def globals_kept() -> Iterator[None]:
    """Restore random generators, torch's default device and its default type, which the traced code may set."""
    python, numpy = random.getstate(), np.random.get_state()
    device, dtype = default_device(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_default_dtype(dtype)
            if default_device() != device:
                torch.set_default_device(device)


def imports_apart() -> contextlib.AbstractContextManager[None]:
    """Return a context in which the code of a module that is first imported in a trace runs outside of it.

    What a library makes in its import is kept for ever: peft, which transformers imports late, has a tensor as an
    argument's default.
    """

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def exec_module(loader: SourceFileLoader, module: types.ModuleType) -> None:
            with _disable_current_modes():
                original(loader, module)

        return exec_module

    with _disable_current_modes():  # what it imports itself when it is first used
        pass
    return replaced(SourceFileLoader, "exec_module", make)


@contextlib.contextmanager
def nothing_left(
    mode: FakeTensorMode, surroundings: Surroundings, *, frozen: bool
) -> Iterator[None]:
    """Take out what is left of a trace at its end; `frozen`: this trace has set older objects apart (`gc.freeze`).

    Raises PredictionError if something cannot be taken out, unless the trace fails with an error of its own.
    """
    failed = True
    places: list[str] = []
    try:
        yield
        failed = False
    finally:
        surroundings.restore()
        left = survivors(mode)
        if frozen:
            gc.unfreeze()
        if left:
            places = take_out(left, surroundings)
            left.clear()
    if places and not failed:
        raise PredictionError(
            "the steps keep tensors of the trace, which have no data and would break what runs next",
            got="; ".join(places),
            hint="keep them in an object that the factory makes, or in a table (dict) or an lru_cache",
        )
