"""Planted tensors, and the peak that the meter gives: equal to the byte."""

import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ftbench.base.units import MIB
from ftbench.worker.measure.meters.cpu_tensors import CpuTensorMemory


def tensor(size_bytes):
    return torch.empty(size_bytes, dtype=torch.uint8)


@pytest.fixture
def meter():
    meter = CpuTensorMemory()
    meter.start()
    yield meter
    if meter._profile is not None:
        meter.read()


def next_phase(meter):
    """Return the peak of the phase that ends, and begin another."""
    peak = meter.read()["peak_cpu_tensors_bytes"]
    meter.start()
    return peak


def test_the_peak_of_a_phase_is_to_the_byte(meter):
    kept = tensor(32 * MIB)
    freed = tensor(64 * MIB)
    del freed
    assert next_phase(meter) == 96 * MIB
    own = tensor(5 * MIB)
    del own
    assert next_phase(meter) == 37 * MIB
    del kept
    assert next_phase(meter) == 32 * MIB  # what was held when it began
    assert next_phase(meter) == 0


def test_a_phase_in_which_nothing_happens_peaks_at_what_is_held(meter):
    kept = tensor(3 * MIB)
    next_phase(meter)
    assert next_phase(meter) == kept.nbytes


def test_no_rounding_is_in_the_figure(meter):
    kept = [tensor(size) for size in (1, 63, 65, MIB + 7)]
    assert next_phase(meter) == 1 + 63 + 65 + MIB + 7 == sum(t.nbytes for t in kept)


def test_the_order_of_allocation_and_release_decides(meter):
    for _ in range(10):
        alone = tensor(MIB)
        del alone
    assert next_phase(meter) == MIB


def test_a_tensor_from_before_is_not_counted_nor_its_release(meter):
    next_phase(meter)
    meter.read()
    older = tensor(16 * MIB)
    meter.start()
    kept = tensor(MIB)
    del older
    assert next_phase(meter) == MIB
    assert next_phase(meter) == kept.nbytes


def test_gradients_and_temporaries_of_an_operator_are_in_it(meter):
    weight = torch.ones(256, 256, requires_grad=True)
    (weight * 2).sum().backward()
    size = weight.nbytes
    # The weight and the product; in the backward pass the gradient takes the product's place.
    assert 2 * size <= next_phase(meter) <= 3 * size


def test_what_another_thread_allocates_is_not_seen(meter):
    kept = []
    thread = threading.Thread(target=lambda: kept.append(tensor(8 * MIB)))
    thread.start()
    thread.join()
    assert kept[0].nbytes == 8 * MIB
    assert next_phase(meter) == 0


def test_weights_mapped_from_a_file_count_with_the_whole_file(meter, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2 * MIB), "b": torch.zeros(MIB)}, file)
    next_phase(meter)
    with safe_open(file, "pt") as opened:
        a = opened.get_tensor("a")
    assert a.nbytes == 8 * MIB
    assert next_phase(meter) == file.stat().st_size
    del a, opened
    next_phase(meter)
    assert next_phase(meter) == 0
