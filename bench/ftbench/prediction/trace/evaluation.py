"""Evaluation over all examples, of which a trace runs a few batches: what the loop keeps grows with each.

`Trainer.evaluation_loop` keeps losses, outputs and labels of all batches on the device until its end, or until it
has done `eval_accumulation_steps`, and joins them anew after each batch. All batches are alike but for what is kept
before them, so the traced ones are taken for the last ones: what the first left behind has the size of all before
the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils._pytree import tree_leaves
from transformers import trainer_pt_utils

from ftbench.plan.cell import Cell
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.events import Kind, Trace
from ftbench.prediction.trace.tracer_mode import Tracer
from ftbench.worker.tasks.tasks import task_of

# Two batches: the outputs of the first are still live in the second. Of outputs per token four, since the loop also
# holds the last batch's own beside all that were joined, and the loader the next one's but in the last batch.
_FEW, _ENOUGH = 2, 4


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The examples of a batch of an evaluation, of all batches on the device at a time, and the traced ones."""

    batch: int
    kept: int
    traced: int

    @property
    def is_sampled(self) -> bool:
        """Return whether not all batches that are on the device at a time are traced."""
        return self.kept > self.traced

    @classmethod
    def of(cls, cell: Cell) -> Evaluation:
        """Return the evaluation of a cell."""
        # Every process keeps what it gathers from all.
        batch = int(cell.settings["per_device_eval_batch_size"]) * cell.num_processes
        moved_after = cell.settings.get("eval_accumulation_steps")
        kept = cell.data.eval_size if moved_after is None else int(moved_after) * batch
        kept = min(cell.data.eval_size, kept)
        batches = _ENOUGH if task_of(cell.data).loss_per_token else _FEW
        return cls(batch, kept, min(kept, batches * batch))


@contextlib.contextmanager
def what_is_kept(tracer: Tracer, evaluation: Evaluation) -> Iterator[dict[int, int]]:
    """Give the sizes, in bytes, of blocks of the traced evaluation as they are at its end, by block."""
    sizes: dict[int, int] = {}
    added: Counter[int] = Counter()  # batches by container
    missing = evaluation.kept - evaluation.traced

    def noting(original: Any) -> Any:
        def add(container: Any, tensors: Any) -> None:
            original(container, tensors)
            added[id(container)] += 1
            batches = added[id(container)]
            if not missing or (batches > 1 and not container.do_nested_concat):
                return  # in a list, only the first is taken for many
            for tensor in tree_leaves(container.tensors):
                block = tracer.block_of(tensor)
                if block is not None:
                    examples = batches * evaluation.batch
                    sizes[block] = tensor.nbytes // examples * (examples + missing)

        return add

    with patches.replaced(trainer_pt_utils.EvalLoopContainer, "add", noting):
        yield sizes


def with_sizes(trace: Trace, sizes: Mapping[int, int]) -> Trace:
    """Return a trace in which some blocks have other sizes, by block in bytes."""
    if not sizes:
        return trace
    nbytes = trace.nbytes.copy()
    storage = (trace.kind == Kind.ALLOCATE) | (trace.kind == Kind.FREE)
    for block, size in sizes.items():
        nbytes[np.flatnonzero(storage & (trace.block == block))] = size
    return dataclasses.replace(trace, nbytes=nbytes)
