from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import ftbench.plan.gpus
from ftbench.base.errors import ProfileError
from ftbench.base.units import GIB, MIB
from ftbench.plan.gpus import (
    CONTEXT_PER_MULTIPROCESSOR_BYTES,
    ESTIMATED,
    UNKNOWN_CONTEXT_BYTES,
    Gpu,
    capacity_bytes,
    custom_gpu,
    find_gpu,
    load_gpus,
)

GPUS = load_gpus()
every_gpu = pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)


def test_the_catalogue_lies_beside_its_module_and_is_read_once():
    assert Path(ftbench.plan.gpus.__file__).with_suffix(".toml").is_file()
    assert load_gpus() is GPUS
    assert len(GPUS) >= 25
    assert {gpu.compute_capability[0] for gpu in GPUS.values()} == {6, 7, 8, 9, 10, 12}


@every_gpu
def test_every_figure_has_its_source(gpu):
    assert gpu.name == gpu.name.lower()
    assert gpu.products
    assert gpu.multiprocessors
    assert gpu.spec_source
    assert gpu.bandwidth_bytes_per_s
    assert (gpu.context_source == ESTIMATED) == (not gpu.context_measured_bytes)
    assert ("no reported total" in gpu.memory_source or "not named" in gpu.memory_source) or (
        gpu.memory_kind == "reported"
    )


@every_gpu
def test_figures_are_plausible(gpu):
    assert 7 * GIB < gpu.memory_low_bytes <= gpu.memory_bytes < 200 * GIB
    assert gpu.memory_low_bytes >= 0.89 * gpu.memory_bytes
    assert 40 * MIB < gpu.context_low_bytes < gpu.context_high_bytes < 1280 * MIB
    assert gpu.context_high_bytes < 0.06 * gpu.memory_low_bytes
    assert 200e9 < gpu.bandwidth_bytes_per_s <= 8e12
    assert 9 < gpu.peak_flops["fp32"] / gpu.bandwidth_bytes_per_s < 110  # FLOP a byte


@every_gpu
def test_fp32_is_that_of_the_multiprocessors_at_a_clock_that_cards_have(gpu):
    wide = gpu.compute_capability in {(6, 0), (7, 0), (7, 5), (8, 0)}
    fp32_units = gpu.multiprocessors * (64 if wide else 128)
    assert 1.2e9 < gpu.peak_flops["fp32"] / (2 * fp32_units) < 2.7e9


@every_gpu
def test_tensor_rates_are_dense_and_go_with_the_architecture(gpu):
    """A figure with sparsity, or at FP16 accumulation, would be twice what the design has."""
    rates = gpu.peak_flops
    expected = {"P100": 2, "V100": 8, "T4": 8, "A100": 16, "H100": 14.5, "H200": 14.5, "B200": 30}
    half_rate = any(word in gpu.products[0] for word in ("GeForce", "A10G", "L40"))
    ratio = 2 if half_rate else 4  # of FP16, at FP32 accumulation, to FP32
    for chip, planted in expected.items():
        ratio = planted if chip in gpu.products[0] else ratio
    ratio = {"rtx-2080-ti": 4, "l40s": 4}.get(gpu.name, ratio)
    assert rates["fp16"] / rates["fp32"] == pytest.approx(ratio, rel=0.05)
    if gpu.compute_capability < (8, 0):
        assert set(rates) == {"fp32", "fp16"}
    else:
        assert rates["bf16"] == rates["fp16"]
        assert rates["bf16"] / rates["tf32"] == pytest.approx(2, rel=0.02)
        assert rates["tf32"] >= rates["fp32"]


def test_estimated_contexts_cover_the_measured_ones():
    low, high = CONTEXT_PER_MULTIPROCESSOR_BYTES
    measured = [gpu for gpu in GPUS.values() if gpu.context_measured_bytes]
    assert len(measured) >= 15
    for gpu in measured:
        assert low <= min(gpu.context_measured_bytes) / gpu.multiprocessors
        assert max(gpu.context_measured_bytes) / gpu.multiprocessors <= high
    assert UNKNOWN_CONTEXT_BYTES[0] <= min(gpu.context_low_bytes for gpu in measured)
    assert UNKNOWN_CONTEXT_BYTES[1] >= max(gpu.context_high_bytes for gpu in measured)


def test_one_measured_context_covers_the_others_of_the_same_chip():
    """Leave all but one out: the margins are wide enough for a card that was measured once."""
    chips: dict[tuple, set[int]] = {}
    for gpu in GPUS.values():
        chip = chips.setdefault((gpu.compute_capability, gpu.multiprocessors), set())
        chip.update(gpu.context_measured_bytes)
    several = [chip for chip in chips.values() if len(chip) > 1]
    assert len(several) >= 6
    for chip in several:
        for one in chip:
            gpu = Gpu.model_validate(GPUS["t4"].model_dump() | {"context_measured_bytes": [one]})
            assert gpu.context_low_bytes <= min(chip)
            assert max(chip) <= gpu.context_high_bytes


@pytest.mark.parametrize(
    ("name", "memory_bytes", "capability", "dtype", "flops", "bandwidth"),
    [
        ("t4", 15_843_721_216, (7, 5), "fp16", 65e12, 320e9),
        ("v100-16gb", 16160 * MIB, (7, 0), "fp16", 125e12, 900e9),
        ("a100-40gb", 42_474_471_424, (8, 0), "bf16", 312e12, 1555e9),
        ("rtx-3060", 12_622_168_064, (8, 6), "fp32", 12.7e12, 360e9),
        ("rtx-4060", 8_318_222_336, (8, 9), "fp32", 15.1e12, 272e9),
        ("rtx-4090", round(23.68 * GIB), (8, 9), "bf16", 165.2e12, 1008e9),
        ("l4", int(22.2 * GIB), (8, 9), "bf16", 121e12, 300e9),
        ("h100", 81090 * MIB, (9, 0), "bf16", 989.4e12, 3.35e12),
        ("b200", 182642 * MIB, (10, 0), "bf16", 2250e12, 8e12),
    ],
)
def test_known_cards(name, memory_bytes, capability, dtype, flops, bandwidth):
    gpu = GPUS[name]
    assert gpu.memory_bytes == memory_bytes
    assert gpu.compute_capability == capability
    assert gpu.peak_flops[dtype] == flops
    assert gpu.bandwidth_bytes_per_s == bandwidth


@pytest.mark.parametrize(("name", "context_mib"), [("t4", 141), ("rtx-6000-ada", 426)])
def test_contexts_measured_elsewhere_lie_in_the_interval(name, context_mib):
    gpu = GPUS[name]
    assert gpu.context_low_bytes < context_mib * MIB < gpu.context_high_bytes


def test_cards_without_a_dtype_say_nothing_of_it():
    assert "bf16" not in GPUS["t4"].peak_flops
    assert "tf32" not in GPUS["v100-32gb"].peak_flops


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("t4", "t4"),
        ("Tesla T4", "t4"),
        ("A100-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("GeForce-RTX-3060", "rtx-3060"),
        ("NVIDIA GeForce RTX 4060", "rtx-4060"),
        ("rtx 4060 Ti 16GB", "rtx-4060-ti-16gb"),
        ("RTX4090", "rtx-4090"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("  l40s ", "l40s"),
    ],
)
def test_find_gpu(text, name):
    assert find_gpu(text) is GPUS[name]


@every_gpu
def test_every_card_is_found_by_its_name_and_by_its_products(gpu):
    for name in (gpu.name, gpu.name.upper(), *gpu.products):
        assert find_gpu(name) is gpu


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("rtx-4091", "rtx-4090"),
        ("a100", "a100-40gb, a100-80gb"),
        ("Tesla V100", "v100-16gb, v100-32gb"),
        ("4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),  # another chip under the same number
        ("mi300x", None),
        ("24G", None),
        ("", None),
    ],
)
def test_an_unknown_gpu_names_the_nearest_and_lists_the_others(text, nearest):
    with pytest.raises(ProfileError, match="no such GPU") as caught:
        find_gpu(text)
    assert caught.value.where == "--gpu"
    assert caught.value.got == text
    assert caught.value.nearest == nearest
    assert "rtx-3060" in caught.value.hint
    assert "24GiB" in caught.value.hint


def test_a_size_in_gib_is_the_one_on_the_box():
    gpu = find_gpu(" 24GiB")
    assert (gpu.name, gpu.compute_capability, gpu.memory_kind) == ("24GiB", (8, 0), "nominal")
    assert (gpu.memory_low_bytes, gpu.memory_bytes) == (int(0.9 * 24 * GIB), 24 * GIB)
    assert (gpu.context_low_bytes, gpu.context_high_bytes) == UNKNOWN_CONTEXT_BYTES
    assert gpu.peak_flops == {}
    assert gpu.bandwidth_bytes_per_s is None


@pytest.mark.parametrize("name", ["rtx-3090", "a10", "l4", "rtx-a5000"])
def test_a_size_on_the_box_covers_the_cards_that_have_it(name):
    size = find_gpu("24GiB")
    assert size.memory_low_bytes <= GPUS[name].memory_low_bytes
    assert GPUS[name].memory_bytes <= size.memory_bytes


@pytest.mark.parametrize("text", ["15109MiB", "15842934784B", "15842934784 b"])
def test_a_size_to_the_byte_or_mib_is_what_cuda_reports(text):
    gpu = find_gpu(text)
    assert gpu.memory_kind == "reported"
    assert gpu.memory_low_bytes == gpu.memory_bytes == 15109 * MIB


@pytest.mark.parametrize("text", ["512MiB", "0GiB", "900 MB", "4090B"])
def test_a_size_that_the_context_fills_is_refused(text):
    with pytest.raises(ProfileError, match="too little memory") as caught:
        find_gpu(text)
    assert "926 MiB" in caught.value.expected


def test_custom_gpu_refuses_what_it_does_not_know():
    assert custom_gpu("80GiB", (9, 0)).compute_capability == (9, 0)
    with pytest.raises(ProfileError, match="unknown compute capability"):
        custom_gpu("24GiB", (3, 5))
    with pytest.raises(ProfileError, match="not a size"):
        custom_gpu("lots")
    with pytest.raises(ProfileError, match="not a size"):
        find_gpu("1.2.3GiB")


def test_capacity_is_the_total_less_the_context():
    gpu = GPUS["t4"]
    assert capacity_bytes(gpu) == (
        round(14.55 * GIB) - (147 + 100) * MIB,
        15_843_721_216 - int(0.65 * 99 * MIB),
    )


@given(st.integers(2, 4096))
def test_capacity_is_an_interval_inside_the_card(gib):
    gpu = custom_gpu(f"{gib}GiB")
    low, high = capacity_bytes(gpu)
    assert 0 < low < high < gpu.memory_bytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_low_bytes": "17GiB"}, "more than memory_bytes"),
        ({"memory_low_bytes": "200MiB"}, "take all of the memory"),
        ({"compute_capability": (1, 0)}, "not known"),
        ({"context_source": ESTIMATED}, "go together"),
        ({"memory_bytes": "much"}, "not a size"),
        ({"peak_flops": {"fp31": 1e12}}, "fp31"),
        ({"bandwidth_bytes_per_s": 0}, "greater than 0"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Gpu.model_validate(GPUS["t4"].model_dump() | change)


def test_a_gpu_cannot_be_changed():
    with pytest.raises(ValidationError):
        GPUS["t4"].memory_bytes = 1
    with pytest.raises(TypeError):
        GPUS["t4"] = GPUS["l4"]
