"""Work: the FLOPs, the bytes and the kernels of a step, counted while it is traced.

FLOPs are those of matrix products and of fused attention, by torch's own formulas (`FlopCounterMode`),
including recomputation in fused and checkpointed blocks. Bytes are those that eager PyTorch moves without
fusion: every operator reads its distinct inputs and writes its results, without caches. Counting does not
change a trace, and costs nothing if it is not requested.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop, shape_wrapper

from ftbench.base.errors import PredictionError
from ftbench.plan.cell import Cell
from ftbench.prediction.trace.evaluation import Evaluation
from ftbench.prediction.trace.events import EVALUATION, Kind, Trace, TracedRole
from ftbench.prediction.trace.flash_attention import (
    flash_attention,
    flash_attention_backward,
    flash_attention_backward_flop,
    flash_attention_flop,
)
from ftbench.prediction.trace.kernel_calls import KernelCall, kernel_call, kernel_work
from ftbench.prediction.trace.trace_trainer import Batches, trace_trainer
from ftbench.prediction.trace.tracer import STEPS, Target
from ftbench.prediction.trace.tracer_mode import Tracer
from ftbench.records.prediction import CellWork, PassWork
from ftbench.worker.measure.operator_bytes import launches, touched, touched_bytes

aten = torch.ops.aten

# The CPU's fused attention has no formula in torch; its arithmetic is that of the card's.
_FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
    flash_attention: shape_wrapper(flash_attention_flop),
    flash_attention_backward: shape_wrapper(flash_attention_backward_flop),
}


def _four_bit_flop(
    inputs: torch.Tensor, packed: torch.Tensor, shape: Any, *_: Any, **__: Any
) -> int:
    outputs: int = shape[0]
    return 2 * inputs.numel() * outputs


# Operators of a package that may not be installed.
_FORMULAS_BY_NAME = {"bitsandbytes::gemm_4bit": _four_bit_flop}
Period = int | str  # a step, or `EVALUATION`


@dataclasses.dataclass
class _Sums:
    """The counts of one period so far.

    `first_block` is the number of the first storage made in the period. For older storages, `read` and
    `written` have the most bytes that one operator touched.
    """

    first_block: int
    flops: int = 0
    product_bytes: int = 0
    other_bytes: int = 0
    kernels: int = 0
    read: dict[int, int] = dataclasses.field(default_factory=dict)
    written: dict[int, int] = dataclasses.field(default_factory=dict)
    calls: list[KernelCall] = dataclasses.field(default_factory=list)

    def as_pass(self, documents: int, batches: int) -> PassWork:
        """Return the sums as plain data."""
        return PassWork(
            documents=documents,
            batches=batches,
            flops=self.flops,
            product_bytes=self.product_bytes,
            other_bytes=self.other_bytes,
            compulsory_bytes=sum(self.read.values()) + sum(self.written.values()),
            kernels=self.kernels,
            by_kernel=kernel_work((call, 1) for call in self.calls),
        )


class WorkCounter:
    """Counts the work of every step of a trace; pass its `watch` to the function that traces."""

    def __init__(self) -> None:
        self._sums: dict[Period, _Sums] = {}

    def watch(self, tracer: Tracer) -> None:
        """Count the operators of this tracer from here on."""
        self._tracer = tracer
        self._device = tracer.device
        tracer.watch = self._count

    def work_of(self, period: Period, *, documents: int, batches: int) -> PassWork:
        """Return the work of a step, or of the evaluation; raises PredictionError if there is none."""
        return self._of(period).as_pass(documents, batches)

    def calls_of(self, period: Period) -> list[KernelCall]:
        """Return the operators of a period that start kernels, in order; raises PredictionError for none."""
        return self._of(period).calls

    def _of(self, period: Period) -> _Sums:
        if period not in self._sums:
            raise PredictionError("no work was counted in this part of a trace", got=str(period))
        return self._sums[period]

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        found = touched(func, args, kwargs, output, self._is_ours)
        if found is None:
            return
        sums = self._period_sums()
        reads = self._noted(found.read, found.bytes_read, sums.read, sums.first_block)
        nbytes = reads + self._noted(found.written, touched_bytes, sums.written, sums.first_block)
        flops = _flops(func, args, kwargs, output)
        sums.flops += flops
        if flops:
            sums.product_bytes += nbytes
        else:
            sums.other_bytes += nbytes
        kernels = launches(func, args, output) if self._on_card else len(found.written)
        sums.kernels += kernels
        sums.calls.append(
            kernel_call(
                func,
                args,
                kwargs,
                output,
                flops=flops,
                nbytes=nbytes,
                kernels=kernels,
                update=self._tracer.updating,
            )
        )

    @property
    def _on_card(self) -> bool:
        return self._device.index is not None

    def _is_ours(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is on the traced device."""
        return isinstance(tensor, FakeTensor) and tensor.fake_device == self._device

    def _period_sums(self) -> _Sums:
        period = self._tracer.period
        if period not in self._sums:
            self._sums[period] = _Sums(first_block=self._tracer.blocks)
        return self._sums[period]

    def _noted(
        self,
        tensors: Iterable[torch.Tensor],
        bytes_of: Callable[[torch.Tensor], int],
        old: dict[int, int],
        first_block: int,
    ) -> int:
        """Return the bytes of these tensors, and record those of storages older than the period."""
        total = 0
        for tensor in tensors:
            nbytes = bytes_of(tensor)
            total += nbytes
            block = self._tracer.block_of(tensor)
            if block is not None and block < first_block:
                old[block] = max(old.get(block, 0), nbytes)
        return total


def count_work(cell: Cell, target: Target, batches: Batches) -> CellWork:
    """Return the work of a cell's optimizer step, after Adam's state was made, and of its evaluation.

    All batches have the cell's size. Raises the errors of tracing.
    """
    counter = WorkCounter()
    traced = trace_trainer(cell, target, batches=batches, watch=counter.watch)
    evaluated = Evaluation.of(cell).traced
    eval_batch = int(cell.settings["per_device_eval_batch_size"])
    return CellWork(
        step=counter.work_of(
            STEPS,
            documents=cell.examples_per_step,
            batches=cell.examples_per_step // cell.per_device_train_batch_size,
        ),
        evaluation=counter.work_of(
            EVALUATION, documents=evaluated, batches=math.ceil(evaluated / eval_batch)
        ),
        checkpoint_bytes=_checkpoint_bytes(traced, cell),
    )


def _checkpoint_bytes(traced: Trace, cell: Cell) -> int:
    """Return the bytes of a checkpoint: the parameters, and the optimizer's state if it is saved.

    For a model with LoRA, the parameters are the trained ones: peft saves no others.
    """
    saved: set[TracedRole] = {"parameters"}
    if not cell.settings.get("save_only_model"):
        saved.add("optimizer state")
    roles = traced.traced_roles
    trained = {traced.owners.get(block) for block, role in roles.items() if role == "gradients"}
    sizes = {
        block: nbytes
        for (kind, block, _), nbytes in zip(traced.rows(), traced.nbytes.tolist(), strict=True)
        if kind == Kind.ALLOCATE
    }
    return sum(
        sizes[block]
        for block, role in roles.items()
        if role in saved
        and (cell.method != "lora" or role != "parameters" or traced.owners.get(block) in trained)
    )


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    packet = func._overloadpacket
    formula: Any = flop_registry.get(packet) or _FORMULAS.get(packet)
    formula = formula or _FORMULAS_BY_NAME.get(func._schema.name)
    return int(formula(*args, **kwargs, out_val=output)) if formula else 0
