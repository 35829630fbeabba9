"""The peak of the CPU tensors, from a two-step pass in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ftbench.plan.cell import Cell
from ftbench.plan.settings import memory_view
from ftbench.records.measurement import Measurement
from ftbench.records.messages import (
    TwoStepPass,
)
from ftbench.records.readings import Memory

TWO_STEP_PASS = "ftbench.worker.two_step_pass"
CPU_TENSORS = "peak_cpu_tensors_bytes"
TENSOR_SOURCE = "torch's CPU allocator through its profiler, in a two-step pass of its own"


def two_step_key(cell: Cell) -> str:
    """Return a key that is equal for cells whose tensors need the same memory in two steps.

    Of `train_size`, only the examples of one step count.
    """
    shape = (cell.max_length, cell.per_device_train_batch_size)
    examples = min(cell.train_size, cell.examples_per_step * cell.num_processes)
    return json.dumps([shape, examples, memory_view(cell.facets)], sort_keys=True, default=str)


def without_tensors(measured: Measurement, reason: str) -> Measurement:
    """Return the measurement with the reason why it has no peak of the CPU tensors."""
    absent = measured.absent | {f"memory.{CPU_TENSORS}": reason}
    return measured.model_copy(update={"absent": absent})


def merge_two_step_passes(measured: Measurement, passes: Sequence[TwoStepPass]) -> Measurement:
    """Return the measurement with the CPU tensors' peaks of each rank's two-step pass, by phase."""
    for rank, two_step in enumerate(passes):
        measured = _with_peaks(measured, rank, two_step)
    reasons = {
        f"phases.{name}.memory.{CPU_TENSORS}": reason
        for name, reason in passes[0].absent.items()
        if name in measured.ranks[0].phases
    }
    return measured.model_copy(
        update={
            "absent": measured.absent | reasons,
            "sources": measured.sources | {CPU_TENSORS: TENSOR_SOURCE},
        }
    )


def _with_peaks(measured: Measurement, number: int, two_step: TwoStepPass) -> Measurement:
    """Return the measurement with the peaks of one rank."""

    def with_peak(memory: Memory, of: Memory | None) -> Memory:
        peak = of.peak_cpu_tensors_bytes if of else None
        return memory.model_copy(update={CPU_TENSORS: peak})

    rank = measured.ranks[number]
    phases = {
        name: phase.model_copy(
            update={"memory": with_peak(phase.memory, two_step.phases.get(name))}
        )
        for name, phase in rank.phases.items()
    }
    return measured.with_rank(number, phases=phases, memory=with_peak(rank.memory, two_step.memory))
