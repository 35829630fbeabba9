import mmap

import pytest

from ftbench.records.measurement import NOISY
from ftbench.records.readings import Memory, Phase
from ftbench.worker.measure.meters.processor import (
    FAULT_S,
    FAULTS_PART,
    KERNEL_WARN,
    ProcessorUse,
    fault_warning,
    processor_use,
)


def training(*, cpu_s=10.0, kernel_s=3.0, page_faults=1_000_000, steps=20):
    return Phase(
        wall_s=5.0,
        cpu_s=cpu_s,
        entries=1,
        kernel_s=kernel_s,
        page_faults=page_faults,
        steps=steps,
        memory=Memory(),
    )


def test_fresh_pages_are_counted_and_touched_ones_are_not():
    pages = 4096
    before = processor_use()
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
        block.madvise(mmap.MADV_NOHUGEPAGE)
        for touched in range(2):
            for page in range(pages):
                block[page * mmap.PAGESIZE] = 1
            used = processor_use().since(before)
            assert pages <= used.page_faults < 2 * pages, touched
    assert used.kernel_s >= 0
    assert used.cpu_s > 0


def test_use_since_an_earlier_reading():
    assert ProcessorUse(5.0, 2.0, 90).since(ProcessorUse(3.0, 0.5, 40)) == (2.0, 1.5, 50)


def test_a_kernel_kept_busy_by_page_faults_is_cautioned_for():
    (run_warning,) = fault_warning(training(), "default")
    assert (run_warning.name, run_warning.value, run_warning.threshold) == (
        "page_faults",
        0.3,
        KERNEL_WARN,
    )
    assert "the kernel took 30% of the processor time of training" in run_warning.message
    assert "50,000 page faults per step" in run_warning.message
    assert "malloc = 'keep'" in run_warning.message


def test_who_keeps_memory_already_is_not_told_to():
    (run_warning,) = fault_warning(training(), "keep")
    assert "malloc" not in run_warning.message


@pytest.mark.parametrize(
    "quiet",
    [
        training(kernel_s=10 * KERNEL_WARN),
        training(page_faults=int(3.0 * FAULTS_PART / FAULT_S)),  # busy with something else
        training(cpu_s=0.0, kernel_s=0.0, page_faults=0),
        training(kernel_s=None, page_faults=None),  # a record of an earlier version
        None,  # a single step has no training after the first steps
    ],
)
def test_no_caution_without_both(quiet):
    assert fault_warning(quiet, "default") == []


def test_running_it_again_would_not_change_it():
    assert "page_faults" not in NOISY
