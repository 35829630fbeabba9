"""Cards, and what simulations say in figures."""

import dataclasses

import pytest

from ftbench.plan.gpus import capacity_bytes, custom_gpu, find_gpu, load_gpus
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.cards import (
    card_of,
    installed_torch,
    on_card,
    verdict_of,
)
from ftbench.prediction.simulate.nccl import CONNECTION_BYTES, nccl_bytes
from ftbench.prediction.simulate.replay import Replay
from ftbench.prediction.simulate.simulation import Simulated

KIB, MIB = 1024, 1024**2


def replayed(requested, allocated, reserved, failed_at=None):
    return Replay(requested, allocated, reserved, 0, 0, 0, failed_at)


def simulated(*replays, out_of_memory="never"):
    return Simulated(tuple(replays), out_of_memory)


T4 = card_of(find_gpu("t4"), (2, 13))


@pytest.mark.parametrize("name", load_gpus())
def test_every_card_of_the_catalogue(name):
    card = card_of(load_gpus()[name])
    least, most = card.capacity
    assert 0 < least <= most
    assert card.capacities == ((least + most) // 2, least, most)
    assert card.runtime.compute_capability == load_gpus()[name].compute_capability


@pytest.mark.parametrize(
    ("gpu", "threads"), [("t4", 1024), ("l4", 1536), ("a100-40gb", 2048), ("h100", 2048)]
)
def test_threads_of_a_multiprocessor(gpu, threads):
    runtime = card_of(find_gpu(gpu)).runtime
    assert runtime.threads_per_multiprocessor == threads
    assert runtime.multiprocessors == find_gpu(gpu).multiprocessors


def test_a_card_without_a_number_of_multiprocessors_has_many():
    assert custom_gpu("24GiB").multiprocessors is None
    assert card_of(custom_gpu("24GiB")).runtime.multiprocessors == 132


def test_the_torch_is_the_installed_one_unless_it_is_said():
    import torch

    installed = tuple(map(int, torch.__version__.split(".")[:2]))
    assert installed_torch() == installed
    assert card_of(find_gpu("t4")).runtime.torch_version == installed
    assert card_of(find_gpu("t4"), (2, 6)).runtime.torch_version == (2, 6)


def test_what_a_card_holds_is_its_total_less_the_context():
    gpu = find_gpu("t4")
    assert T4.capacity == capacity_bytes(gpu)
    assert T4.context == (gpu.context_low_bytes, gpu.context_high_bytes)


def test_figures_are_the_first_replays_with_all_of_them_as_interval():
    found = on_card(T4, simulated(replayed(10, 20, 30), replayed(8, 25, 26), replayed(11, 19, 31)))
    figures = {name: getattr(found, name) for name in ("requested", "allocated", "reserved")}
    assert {n: (f.value_bytes, f.low_bytes, f.high_bytes) for n, f in figures.items()} == {
        "requested": (10, 8, 11),
        "allocated": (20, 19, 25),
        "reserved": (30, 26, 31),
    }
    assert {figure.certainty for figure in figures.values()} == {"simulated"}
    assert (found.gpu, found.verdict) == ("t4", "fits")
    assert (found.capacity_low_bytes, found.capacity_high_bytes) == T4.capacity


def test_a_process_has_its_context_besides():
    found = on_card(T4, simulated(replayed(10, 20, 30), replayed(8, 25, 26)))
    least, most = T4.context
    assert found.process.low_bytes == 26 + least
    assert found.process.high_bytes == 30 + most
    assert found.process.value_bytes == 30 + (least + most) // 2
    assert found.process.certainty == "interval"


@pytest.mark.parametrize(
    ("out_of_memory", "verdict"),
    [("never", "fits"), ("always", "does not fit"), ("sometimes", "too close to call")],
)
def test_verdicts(out_of_memory, verdict):
    found = simulated(replayed(1, 2, 3), out_of_memory=out_of_memory)
    assert verdict_of(found) == on_card(T4, found).verdict == verdict


def test_cards_are_told_apart_and_can_be_keys():
    same = card_of(find_gpu("t4"), (2, 13))
    assert {T4: 1}[same] == 1
    assert dataclasses.replace(same, capacity=(1, 2)) != T4


def test_communicators_take_memory_beside_the_allocator():
    least, most = nccl_bytes(2)
    assert (least, most) == (0, 2 * nccl_bytes(1)[1])
    card = T4.with_communicators(2)
    assert card.capacity == (T4.capacity[0] - most, T4.capacity[1])
    assert card.context == (T4.context[0], T4.context[1] + most)
    assert T4.with_communicators(0) == T4


def test_a_card_that_communicators_could_fill_has_room_for_nothing():
    assert T4.with_communicators(1000).capacity[0] == 0
    # An allocator's settings take 0 for a mistake.
    limits = T4.with_communicators(1000).capacities
    assert [AllocatorSettings(limit).capacity_bytes for limit in limits][1] == 1


def test_a_connection_has_the_buffers_of_three_protocols():
    assert CONNECTION_BYTES == 512 * KIB + 4800 * KIB + 4 * MIB
