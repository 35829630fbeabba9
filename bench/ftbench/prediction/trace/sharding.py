"""Sharding: the tracer of one rank of many, and the names of torch.distributed that a trace replaces.

FSDP2's Python, DTensor's dispatch and the C++ Reducer of DistributedDataParallel run as they are. This module
imports torch.distributed, and is imported only if a trace has several ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Reducer
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed import _symmetric_memory, device_mesh
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffload, CPUOffloadPolicy, FSDPModule
from torch.distributed.fsdp._fully_shard import _fsdp_init, _fsdp_param
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.nn.parallel import distributed
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.card_view import function_replaced
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.fake_mode import TraceFakes
from ftbench.prediction.trace.patches import replaced
from ftbench.prediction.trace.process_group import communicators
from ftbench.prediction.trace.sharding_parts import parts_named
from ftbench.prediction.trace.target import Target
from ftbench.prediction.trace.tracer_mode import Tracer

_FUNCTIONAL = "_c10d_functional"
_WAIT_TENSOR = torch.ops._c10d_functional.wait_tensor.default
# They take the buffers of communication from NCCL's memory pool, or from symmetric memory, beside torch's pools.
_OTHER_MEMORY = (
    (FSDPModule, "set_allocate_memory_from_process_group_for_comm"),
    (FSDPModule, "set_symm_mem_for_comm"),
    (_symmetric_memory, "empty"),
    (_symmetric_memory, "rendezvous"),
    (_symmetric_memory, "enable_symm_mem_for_group"),
)
# Methods of a mesh that compute with numbers of ranks, in tensors that have data.
_OF_MESH = ("__init__", "__getitem__", "_flatten", "_unflatten", "_get_all_submeshes")


class RankTracer(Tracer):
    """The tracer of one rank: operators on DTensors are seen as those on their local tensors."""

    def __init__(self, target: Target, fakes: TraceFakes) -> None:
        super().__init__(target, fakes)
        self._with_numbers = False  # the Reducer is reading numbers from tensors that it makes
        self._numbers_of_ranks = WeakIdKeyDictionary()
        self._groups: set[str] = set()  # that a DTensor's collectives name

    def _dispatched(
        self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its own dispatch comes back with local tensors
        if func.namespace == _FUNCTIONAL and isinstance(args[-1], str):
            self._groups.add(args[-1])
        if func is _WAIT_TENSOR:
            return args[0]  # its meta kernel makes a copy; the real one does not
        if not types:  # else it is on tensors of the trace, which have no data
            if self._with_numbers and _of_numbers(args, kwargs):
                return self._run_with_data(func, args, kwargs)
            if self._numbers_of_ranks and self._is_of_ranks(args, kwargs):
                with _disable_current_modes():
                    return self.of_ranks(func(*args, **kwargs))
        return super()._dispatched(func, types, args, kwargs)

    def finish(self) -> Trace:
        """Return the trace, with the number of communicators."""
        return dataclasses.replace(super().finish(), communicators=communicators(self._groups))

    @contextlib.contextmanager
    def rank_of_many(self) -> Iterator[None]:
        """Replace what has to be replaced in torch.distributed, and name the parts of sharding."""
        with sharding(self), parts_named(self._position):
            yield

    def of_ranks(self, output: Any) -> Any:
        """Return an operator's output; its tensors have numbers of ranks, with data, like a mesh's own."""
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self._numbers_of_ranks[leaf] = None
        return output

    def _is_of_ranks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        return bool(tensors) and all(tensor in self._numbers_of_ranks for tensor in tensors)

    @contextlib.contextmanager
    def shapes_only(self) -> Iterator[None]:
        """Record nothing in the body: DTensor works out shapes there, on tensors of the whole size."""
        before, self._storages.closed = self._storages.closed, True
        try:
            yield
        finally:
            self._storages.closed = before

    @contextlib.contextmanager
    def with_numbers(self) -> Iterator[None]:
        """Let tensors of int32 that are made in the body have data."""
        self._with_numbers = True
        try:
            yield
        finally:
            self._with_numbers = False

    def _run_with_data(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on tensors with data; those on the traced device are recorded like others."""
        with _disable_current_modes():
            output = func(*args, **kwargs)
        if kwargs.get("device") == self._device and not self._storages.closed:
            self._storages.see(output, self._position.site(func))
        return output


def _of_numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether an operator is on tensors with data, or makes one of int32."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if tensors:
        return not any(isinstance(tensor, FakeTensor) for tensor in tensors)
    return kwargs.get("dtype") is torch.int32


@contextlib.contextmanager
def sharding(tracer: RankTracer) -> Iterator[None]:
    """Let meshes, FSDP2, DTensor and DistributedDataParallel work on the tensors of a trace."""
    with contextlib.ExitStack() as stack:
        for name in _OF_MESH:
            stack.enter_context(replaced(DeviceMesh, name, _outside))
        for name in ("_concatenate", "from_group"):
            stack.enter_context(replaced(DeviceMesh, name, lambda f: staticmethod(_outside(f))))
        stack.enter_context(replaced(DeviceMesh, "mesh", lambda f: _numbers(f, tracer)))
        stack.enter_context(_without_modes(device_mesh, "init_device_mesh"))
        stack.enter_context(_process_group_exists())
        reset = replaced(_fsdp_param.FSDPParam, "reset_sharded_param", _resetting)
        stack.enter_context(reset)
        propagate = "_propagate_tensor_meta_non_cached"
        within = _inside(tracer.shapes_only)
        stack.enter_context(replaced(ShardingPropagator, propagate, within))
        # It reads numbers that other ranks have sent.
        verify = "_verify_param_shape_across_processes"
        stack.enter_context(replaced(distributed, verify, lambda _: lambda *args, **kwargs: None))
        # FSDP1 compares addresses to see whether a flat parameter is its shard, and whether its views are.
        stack.enter_context(replaced(FakeTensor, "data_ptr", lambda _: _address))
        stack.enter_context(replaced(torch.UntypedStorage, "data_ptr", _address_of_storage))
        for offload in (CPUOffloadPolicy, CPUOffload):
            stack.enter_context(replaced(offload, "__init__", _offload_refused))
        stack.enter_context(replaced(_fsdp_init, "_move_states_to_device", _sharded_twice_refused))
        for owner, name in _OTHER_MEMORY:
            stack.enter_context(replaced(owner, name, _other_memory_refused(name)))
        rebuild = replaced(Reducer, "_rebuild_buckets", _inside(tracer.with_numbers))
        stack.enter_context(rebuild)
        yield


def _other_memory_refused(name: str) -> Callable[[Any], Callable[..., NoReturn]]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise PredictionError(
            "buffers of communication that are not in torch's own pools are not predicted",
            where=name,
            hint="leave it out, and add what the communication library allocates",
        )

    return lambda _: refuse


def _sharded_twice_refused(original: Any) -> Callable[..., None]:
    """Return FSDP2's check of a unit's parameters; one that is sharded already fails in a run, too."""

    def move(*args: Any) -> None:
        try:
            original(*args)
        except AssertionError as error:
            raise PredictionError(
                "a parameter of this unit is sharded already, which fails in a run, too",
                where="fully_shard",
                got=str(error),
                hint="accelerate 1.15 shards the embeddings of BERT twice, since they are a unit of their own:"
                " name the others, as in parallel.transformer_layer_cls_to_wrap = ['BertLayer']",
            ) from error

    return move


def _outside(original: Any) -> Any:
    """Return a function that runs outside of the trace, on tensors with data."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return original(*args, **kwargs)

    return call


def _numbers(original: property, tracer: RankTracer) -> property:
    """Return a mesh's property of a tensor that has data: the numbers of its ranks."""
    read = _outside(original.__get__)
    return property(lambda mesh: tracer.of_ranks(read(mesh)))


def _inside(context: Callable[[], contextlib.AbstractContextManager[None]]) -> Callable[[Any], Any]:
    """Return what makes of a function one that runs in a context."""

    def make(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with context():
                return original(*args, **kwargs)

        return call

    return make


def _without_modes(module: Any, name: str) -> contextlib.AbstractContextManager[None]:
    """Let a function of a module run outside of the trace, under every name that it was imported under."""
    function = getattr(module, name)
    own = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return function_replaced(module, name, _outside(own))


@contextlib.contextmanager
def _process_group_exists() -> Iterator[None]:
    """Let code that starts a process group, and ends it, have the one of the trace."""
    with contextlib.ExitStack() as stack:
        for name in ("init_process_group", "destroy_process_group"):
            nothing = function_replaced(dist, name, lambda *_, **__: None)
            stack.enter_context(nothing)
        stack.enter_context(function_replaced(dist, "all_gather_object", _gather_object))
        stack.enter_context(function_replaced(dist, "broadcast_object_list", lambda *_, **__: None))
        yield


def _gather_object(objects: list[Any], own: Any, group: Any = None) -> None:
    """Have every rank send what this one does."""
    objects[:] = [own] * len(objects)


def _resetting(original: Any) -> Any:
    """Let FSDP2 see that a shard is padded already.

    It compares addresses, which tensors without data do not have, and would pad an uneven shard a second time.
    """

    def reset(self: Any) -> None:
        local = getattr(self._module_info.module, self._module_info.param_name)._local_tensor
        ours = self._sharded_param_data
        if not local.is_meta and _same_storage(local, ours):
            self._sharding_spec = self.sharded_param._spec
        else:
            original(self)

    return reset


def _offload_refused(original: Any) -> Any:
    """Return `__init__` of FSDP2's policy of offloading, or of FSDP1's, which has a switch."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if getattr(self, "offload_params", True):
            raise PredictionError(
                "parameters that are offloaded to the host are not predicted",
                got=type(self).__name__,
                hint="shard without offloading",
            )

    return init


def _address(tensor: FakeTensor) -> int:
    """Return a number that is equal for tensors that begin at one place of one storage; 0 without memory."""
    start = tensor.untyped_storage().data_ptr()
    return start and start + int(tensor.storage_offset()) * tensor.itemsize


def _address_of_storage(original: Any) -> Callable[[torch.UntypedStorage], int]:
    def address(storage: torch.UntypedStorage) -> int:
        if storage.device.type != "meta":  # as those of tensors without data are
            return int(original(storage))
        return storage._cdata if storage.nbytes() else 0

    return address


def _same_storage(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata
