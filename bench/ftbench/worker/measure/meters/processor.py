"""Processor time of this process, the kernel's part of it, and page faults."""

from __future__ import annotations

import resource
import time
from typing import NamedTuple

from ftbench.plan.profile import Malloc
from ftbench.records.measurement import RunWarning
from ftbench.records.readings import Phase

# A larger share of the kernel in a phase's processor time deserves an explanation.
KERNEL_WARN = 0.10
# The measured time of a fault is 0.5 µs (a page that is still in the cache) to 3.5 µs (zeroed in a virtual
# machine). Faults are taken as the cause if they may account for half of the kernel's time. Huge pages
# fault too seldom for that, though zeroing them takes as long.
FAULT_S = 3.5e-6
FAULTS_PART = 0.5


class ProcessorUse(NamedTuple):
    """Processor seconds of all threads, the kernel's part of them, and page faults.

    Only minor faults are counted, for which the kernel maps a page, usually a new one that it zeroes, without
    reading from the disk.
    """

    cpu_s: float
    kernel_s: float
    page_faults: int

    def since(self, before: ProcessorUse) -> ProcessorUse:
        """Return the use since an earlier reading."""
        return ProcessorUse(
            self.cpu_s - before.cpu_s,
            self.kernel_s - before.kernel_s,
            self.page_faults - before.page_faults,
        )


def processor_use() -> ProcessorUse:
    """Return the use of this process since it began (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return ProcessorUse(time.process_time(), used.ru_stime, used.ru_minflt)


def fault_warning(training: Phase | None, malloc: Malloc) -> list[RunWarning]:
    """Return a warning if the kernel took much of the training's processor time because of page faults."""
    if training is None or training.kernel_s is None or training.page_faults is None:
        return []
    if training.page_faults * FAULT_S < FAULTS_PART * training.kernel_s:
        return []
    share = training.kernel_s / training.cpu_s if training.cpu_s > 0 else 0.0
    if share <= KERNEL_WARN:
        return []
    per_step = training.page_faults / (training.steps or 1)
    message = (
        f"the kernel took {share:.0%} of the processor time of training, with {per_step:,.0f} page faults"
        " per step, probably because each step returns its memory to the kernel, which zeroes it again"
    )
    if malloc == "default":
        message += "; malloc = 'keep' in the profile avoids that, and needs more memory"
    return [RunWarning(name="page_faults", message=message, value=share, threshold=KERNEL_WARN)]
