from types import SimpleNamespace

import pytest
import torch

from ftbench.base.errors import WorkerError
from ftbench.worker.measure import device as module
from ftbench.worker.measure.device import (
    describe,
    gpu_uuid,
    measure_matmul,
    torch_device,
)


def test_the_cpu_is_described():
    described = describe(torch_device("cpu"))
    assert described.kind == "cpu"
    assert described.name
    assert described.threads == torch.get_num_threads()
    assert described.uuid is None


def test_a_torch_that_cannot_use_the_card_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WorkerError, match="this torch cannot use it") as caught:
        torch_device("cuda")
    assert "run.device=cpu" in caught.value.hint


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_a_uuid_is_written_as_nvml_does(uuid):
    assert gpu_uuid(SimpleNamespace(uuid=uuid)) == "GPU-1234"


@pytest.fixture
def planted_times(monkeypatch):
    """Have each product take the next planted time; the sizes that were timed are noted."""
    times, sizes = [], []

    def timed(a):
        sizes.append(len(a))
        return times.pop(0)

    monkeypatch.setattr(module, "_time_matmul", timed)
    return times, sizes


def test_the_matmul_peak_is_the_best_of_several(planted_times):
    times, _ = planted_times
    times += [9.0, 2.0, *[2.0] * 4, 0.5, *[2.0] * 4]  # warm-up, size, then nine tries
    assert measure_matmul(torch.device("cpu"), "float32") == 2 * 256**3 / 0.5


def test_matrices_grow_until_a_product_takes_long_enough(planted_times):
    times, sizes = planted_times
    times += [0.001, 0.001, 0.001, 0.005, 0.001, 0.03, *[0.03] * 9]
    assert measure_matmul(torch.device("cpu"), "float32") == 2 * 1024**3 / 0.03
    assert sizes[:6] == [256, 256, 512, 512, 1024, 1024]


@pytest.mark.parametrize("dtype", list(module.DTYPES))
def test_a_real_product_has_a_rate(monkeypatch, dtype):
    monkeypatch.setattr(module, "_MATMUL_SIZES", (64,))
    assert measure_matmul(torch.device("cpu"), dtype) > 0


def test_measuring_leaves_the_random_state_alone(monkeypatch):
    monkeypatch.setattr(module, "_MATMUL_SIZES", (16,))
    before = torch.get_rng_state()
    measure_matmul(torch.device("cpu"), "bfloat16")
    assert torch.equal(torch.get_rng_state(), before)
