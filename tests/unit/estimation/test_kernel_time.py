"""The model of a step's time: single kernels worked out by hand, and steps of several."""

import dataclasses

import pytest

from ftbench.estimation.card_speed import CardSpeed, speed_of
from ftbench.estimation.kernel_time import Step, Steps
from ftbench.estimation.time_constants import TimeConstants
from ftbench.plan.gpus import find_gpu, load_gpus
from ftbench.records.kernel_work import AttentionCall, KernelWork, MemoryKernels, Product
from tests.factories import pass_work

CARD = CardSpeed("a card", (8, 0), {"fp32": 1e12, "fp16": 4e12}, 1e11, 10, 1e9, 1000.0)
# Round numbers; nothing but products and bytes costs anything.
PLAIN = TimeConstants(
    plain_share=0.5, tf32_share=0.5, tensor_share=0.5, early_tensor_share=0.25, plain_tile_edge=0,
    tensor_tile_edge=0, plain_depth_overhead=0, tensor_depth_overhead=0, product_start_s=0,
    product_bandwidth_share=1.0, bandwidth_share=0.5, bytes_per_cycle=1e9, kernel_start_s=0,
    attention_share=0.5, geforce_clock=1.5, host_s=0, host_update_s=0,
    old_software=2.0, tensor_power_share=1.0, watts_per_tflops={"turing": 0.0, "ada": 1e3},
)  # fmt: skip


def product(m, n, k, *, batch=1, dtype="float32", count=1):
    return Product(batch=batch, m=m, n=n, k=k, dtype=dtype, count=count)


def moved(nbytes=0, kernels=0, *, update=False, tensors=None):
    return MemoryKernels(
        kind="elementwise",
        dtype="float32",
        update=update,
        nbytes=nbytes,
        kernels=kernels,
        tensors=kernels if tensors is None else tensors,
    )


def step(*rows, card=CARD, kernels=None, **changes):
    kinds = (Product, AttentionCall, MemoryKernels)
    products, attention, memory = (
        tuple(row for row in rows if isinstance(row, kind)) for kind in kinds
    )
    number = sum(row.kernels for row in memory) if kernels is None else kernels
    of = KernelWork(products=products, attention=attention, memory=memory)
    return Step(pass_work(kernels=number, by_kernel=of), card, **changes)


def seconds(*rows, constants=PLAIN, **changes):
    return Steps([step(*rows, **changes)]).seconds(constants).total[0]


def constants(**changes):
    return PLAIN.model_copy(update=changes)


# Products

TILE = 2 * 32 * 32 * 4096 / (0.5 * 1e12 / 10)  # a wave of the smallest tiles at this depth


def test_a_wave_that_is_not_full_takes_as_long_as_one_that_is():
    one, ten = (seconds(product(32, 32 * tiles, 4096), constants=NO_BYTES) for tiles in (9, 10))
    assert one == pytest.approx(TILE)
    assert ten == pytest.approx(TILE)
    # Eleven tiles take two waves, or five of quarters.
    assert seconds(product(32, 32 * 11, 4096), constants=NO_BYTES) == pytest.approx(5 / 4 * TILE)


NO_BYTES = constants(product_bandwidth_share=1e9, plain_tile_edge=0)


def test_few_tiles_share_their_depth_among_multiprocessors():
    assert seconds(product(32, 32, 4096), constants=NO_BYTES) == pytest.approx(TILE / 4)


def test_a_part_of_a_tile_costs_a_tile():
    assert seconds(product(33, 320, 4096), constants=NO_BYTES) == pytest.approx(2 * TILE)


def test_a_part_of_a_tile_costs_a_tile_in_width_too():
    assert seconds(product(3200, 33, 4096), constants=NO_BYTES) == pytest.approx(20 * TILE)


def test_parts_of_a_depth_are_written_and_added():
    partial = 8 * 4 * 32 * 32 / 1e11
    assert seconds(product(32, 32, 4096)) == pytest.approx(TILE / 4 + partial)


def test_large_tiles_are_worth_more_if_edges_cost():
    with_edges = constants(product_bandwidth_share=1e9, plain_tile_edge=1024)
    large = seconds(product(2560, 1280, 4096), constants=with_edges)
    flops_only = 2 * 2560 * 1280 * 4096 / 0.5e12
    assert large == pytest.approx(flops_only * (1 + 1024 / (256 * 128)))


def test_a_thin_product_takes_as_long_as_its_bytes():
    nbytes = 4 * (4096 * 1 + 1 * 4096 + 4096 * 4096)
    assert seconds(product(4096, 4096, 1)) == pytest.approx(nbytes / 1e11)


def test_products_of_a_batch_and_a_count_add_up():
    alone = seconds(product(320, 320, 4096), constants=NO_BYTES)
    assert seconds(product(320, 320, 4096, batch=3), constants=NO_BYTES) == pytest.approx(3 * alone)
    assert seconds(product(320, 320, 4096, count=5), constants=NO_BYTES) == pytest.approx(5 * alone)


def test_types_have_their_rates():
    full, half = (
        seconds(product(320, 320, 4096, dtype=d), constants=NO_BYTES)
        for d in ("float32", "float16")
    )
    assert full == pytest.approx(4 * half)
    assert seconds(product(320, 320, 4096, dtype="bfloat16"), constants=NO_BYTES) == pytest.approx(
        full
    )


def test_a_power_limit_lowers_the_clock_of_products():
    ada = dataclasses.replace(CARD, compute_capability=(8, 9))  # needs 1000 W, has 1000 W
    ratio = seconds(product(320, 320, 4096), card=ada, constants=NO_BYTES) / seconds(
        product(320, 320, 4096), constants=NO_BYTES
    )
    assert ratio == pytest.approx(2**0.25)


def test_the_first_tensor_cores_reach_less_except_halved_ones():
    sevens = [
        dataclasses.replace(
            CARD, compute_capability=(7, 5), peak_flops={"fp32": 1e12, "fp16": peak}
        )
        for peak in (10.24e12, 5.12e12)
    ]
    assert [card.early_tensor_cores for card in sevens] == [True, False]
    early, halved = (
        seconds(product(320, 320, 4096, dtype="float16"), card=card, constants=NO_BYTES)
        for card in sevens
    )
    assert early == pytest.approx(halved)  # twice the peak, half the share


def test_geforce_cards_run_above_their_clock():
    game = dataclasses.replace(CARD, geforce=True)
    assert seconds(product(320, 320, 4096), constants=NO_BYTES) == pytest.approx(
        1.5 * seconds(product(320, 320, 4096), card=game, constants=NO_BYTES)
    )


# Attention and memory


def attention(*, causal):
    return AttentionCall(
        call_flops=10**12, length=512, dtype="float32", causal=causal, backward=False, count=3
    )


def test_a_causal_square_takes_half():
    assert seconds(attention(causal=False)) == pytest.approx(3 * 1e12 / 0.5e12)
    assert seconds(attention(causal=True)) == pytest.approx(3 * 0.5e12 / 0.5e12)


def test_bytes_go_through_two_limits_one_after_the_other():
    both = constants(bytes_per_cycle=2.0)
    assert seconds(moved(10**9), constants=both) == pytest.approx(1e9 / 0.5e11 + 1e9 / (2 * 1e10))


# Host and card


def test_the_slower_of_card_and_host_decides():
    slow = constants(host_s=1e-3)
    assert seconds(moved(10, 1000), constants=slow) == pytest.approx(1.0)
    assert seconds(moved(10**13, 1000), constants=slow) == pytest.approx(200.0)


def test_where_the_host_waits_the_update_comes_after_the_passes():
    slow = constants(host_update_s=1e-3)
    rows = (
        moved(5 * 10**10),
        moved(10, 1000, update=True),
    )  # a second on the card, and one on the host
    assert seconds(*rows, constants=slow) == pytest.approx(2.0)
    assert seconds(*rows, constants=slow, waits=False) == pytest.approx(2 ** (1 / 6))


def test_a_loop_over_parameters_starts_a_kernel_for_each():
    slow = constants(host_update_s=1e-3, kernel_start_s=1e-9)
    row = moved(0, 2, update=True, tensors=200)
    listed, looped = (seconds(row, constants=slow, loops=loops) for loops in (False, True))
    assert looped == pytest.approx(100 * listed)


def test_a_loop_starts_as_many_on_the_card():
    starting = constants(kernel_start_s=1e-3)
    row = moved(0, 2, update=True, tensors=200)
    assert seconds(row, constants=starting) == pytest.approx(2e-3)
    assert seconds(row, constants=starting, loops=True) == pytest.approx(0.2)


def test_old_software_is_slower_but_for_plain_products():
    assert seconds(moved(10**9), old=True) == pytest.approx(2 * seconds(moved(10**9)))
    half = product(320, 320, 4096, dtype="float16")
    assert seconds(half, old=True) == pytest.approx(2 * seconds(half))
    plain = product(320, 320, 4096)
    assert seconds(plain, old=True) == pytest.approx(seconds(plain))


def test_many_steps_together_are_as_each_alone():
    cards = [speed_of(find_gpu(name)) for name in ("t4", "a100-40gb", "rtx-4090")]
    rows = (product(700, 900, 300), attention(causal=True), moved(10**8, 5))
    steps = [step(*rows[:number], card=card) for card in cards for number in (1, 2, 3)]
    together = Steps(steps).seconds(PLAIN)
    for place, one in enumerate(steps):
        alone = Steps([one]).seconds(PLAIN)
        assert together.total[place] == alone.total[0]
        assert together.memory[place] == alone.memory[0]


def test_every_card_of_the_catalogue_has_a_speed():
    assert all(speed_of(gpu) is not None for gpu in load_gpus().values())
    assert speed_of(find_gpu("rtx-4090")).geforce
    assert not speed_of(find_gpu("a10")).geforce
    assert speed_of(find_gpu("24GiB")) is None
