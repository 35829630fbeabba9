"""Names for the memory of sharding: what is gathered, unsharded and reduced, and the unit that it is of.

Without them, a block that FSDP2 gathers would be one of `aten::empty`, outside of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch._C._distributed_c10d import Reducer
from torch.distributed.fsdp import _runtime_utils
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

from ftbench.prediction.trace.patches import replaced
from ftbench.prediction.trace.position import Position

ALL_GATHER, UNSHARD, REDUCE_SCATTER = "all-gather", "unsharded parameters", "reduce-scatter"
BUCKETS = "gradient buckets"


@contextlib.contextmanager
def parts_named(position: Position) -> Iterator[None]:
    """Give the blocks that sharding code allocates in the body the names of their parts."""

    def of_unit(operator: str) -> Callable[[Any], Any]:
        return _named(position, operator, lambda group: group._module_fqn or "")

    def of_flat(operator: str) -> Callable[[Any], Any]:
        return _named(position, operator, lambda _: None)

    with contextlib.ExitStack() as stack:
        for owner, name, make in (
            (FSDPParamGroup, "unshard", of_unit(ALL_GATHER)),
            (FSDPParamGroup, "wait_for_unshard", of_unit(UNSHARD)),
            (FSDPParamGroup, "post_backward", of_unit(REDUCE_SCATTER)),
            (_runtime_utils, "_unshard", of_flat(ALL_GATHER)),
            (_runtime_utils, "_reduce_grad", of_flat(REDUCE_SCATTER)),
            (Reducer, "__init__", of_flat(BUCKETS)),
            (Reducer, "_rebuild_buckets", of_flat(BUCKETS)),
        ):
            stack.enter_context(replaced(owner, name, make))
        yield


def _named(
    position: Position, operator: str, unit: Callable[[Any], str | None]
) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
            with position.part(operator, unit(owner)):
                return original(owner, *args, **kwargs)

        return call

    return make
