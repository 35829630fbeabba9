"""What flash-attn allocates, counted by hand; and that transformers finds it only while it is to."""

import pytest
import torch
from transformers import modeling_flash_attention_utils as utils

from ftbench.base.errors import PatchError, PredictionError
from ftbench.prediction.trace import flash_attention_package as package_module
from ftbench.prediction.trace.events import Kernel, Kind
from ftbench.prediction.trace.flash_attention import (
    flash_attention_backward_flop,
    flash_attention_flop,
    flash_attn_func,
    flash_attn_varlen_func,
)
from ftbench.prediction.trace.flash_attention_package import flash_attention_installed, unpad_data
from ftbench.prediction.trace.trace_trainer import trace_trainer
from ftbench.prediction.trace.tracer import Target, trace
from ftbench.prediction.trace.work import WorkCounter
from tests.traced import LAYERS, traced_cell
from tests.unit.prediction.modules import allocations, calls

BATCH, LENGTH, HEADS, KEY_HEADS, WIDTH = 2, 24, 4, 2, 16
TOKENS = BATCH * LENGTH
HALF, FLOAT, STATE = 2, 4, 16
FORWARD, BACKWARD = "ftbench::flash_attention", "ftbench::flash_attention_backward"


def tensors(device, *outer, width=WIDTH, dtype=torch.bfloat16):
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return [
        torch.ones(*outer, number, width, device=device, dtype=dtype, requires_grad=True)
        for number in heads
    ]


def dense(device, width=WIDTH, **options):
    return flash_attn_func(*tensors(device, BATCH, LENGTH, width=width), **options)


def varying(device, **options):
    sums = torch.ones(BATCH + 1, device=device, dtype=torch.int32)
    return flash_attn_varlen_func(*tensors(device, TOKENS), sums, sums, LENGTH, LENGTH, **options)


@pytest.mark.parametrize("attend", [dense, varying])
def test_the_forward_pass_keeps_output_sums_and_state(attend):
    made = allocations(attend, operator=FORWARD)
    assert made == [TOKENS * HEADS * WIDTH * HALF, TOKENS * HEADS * FLOAT, STATE]


@pytest.mark.parametrize("attend", [dense, varying])
def test_the_backward_pass_makes_three_gradients(attend):
    def run(device):
        attend(device).sum().backward()

    gradients = [TOKENS * heads * WIDTH * HALF for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    assert allocations(run, operator="aten::empty_like") == gradients
    assert sum(allocations(run, operator=BACKWARD)) == 0


def test_heads_are_padded_to_a_multiple_of_eight():
    def run(device):
        output = dense(device, width=20)
        assert output.shape == (BATCH, LENGTH, HEADS, 20)
        output.sum().backward()

    sizes = [TOKENS * heads * 24 * HALF for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    # Query, key and value; the gradient of the output.
    assert allocations(run, operator="aten::constant_pad_nd") == [*sizes, sizes[0]]
    assert allocations(run, operator=FORWARD)[0] == sizes[0]
    assert allocations(run, operator="aten::empty_like") == sizes


@pytest.mark.parametrize(
    ("attend", "dropout", "expected"),
    [
        (
            dense,
            0.0,
            [
                Kernel(FORWARD, (BATCH, HEADS, LENGTH, LENGTH, WIDTH), (), False),
                Kernel(BACKWARD, (BATCH, HEADS, LENGTH, LENGTH, WIDTH, KEY_HEADS), (2, 0), True),
            ],
        ),
        (
            dense,
            0.1,
            [Kernel(BACKWARD, (BATCH, HEADS, LENGTH, LENGTH, WIDTH, KEY_HEADS), (2, 0), True)],
        ),
        (
            varying,
            0.0,
            [Kernel(BACKWARD, (BATCH, HEADS, TOKENS, TOKENS, WIDTH, KEY_HEADS), (2, 1), True)],
        ),
    ],
)
def test_the_calls_that_need_a_workspace(attend, dropout, expected):
    def run(device):
        return attend(device, dropout_p=dropout)

    found = trace(calls(run, backward=True), steps=1)
    assert [kernel for kernel in found.kernels if kernel.operator.startswith("ftbench")] == expected


def test_two_products_forward_and_five_backward():
    query, key = (BATCH, LENGTH, HEADS, WIDTH), (BATCH, LENGTH, KEY_HEADS, WIDTH)
    product = 2 * BATCH * HEADS * LENGTH * LENGTH * WIDTH
    assert flash_attention_flop(query, key, key, 0, 0.0) == 2 * product
    assert flash_attention_backward_flop(query, query, key, key, 0, 0, 0, 0) == 5 * product
    flat = (TOKENS, HEADS, WIDTH)
    assert flash_attention_flop(flat, flat, flat, BATCH, 0.0) == 2 * product


@pytest.mark.parametrize("attend", [dense, varying])
def test_their_work_is_counted(attend):
    counter = WorkCounter()
    trace(calls(attend, backward=True), steps=1, watch=counter.watch)
    product = 2 * BATCH * HEADS * LENGTH * LENGTH * WIDTH
    assert counter.work_of(1, documents=1, batches=1).flops == 7 * product


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 16), (torch.bfloat16, 264), (torch.float64, 8)]
)
def test_what_the_package_rejects(dtype, width):
    def run(device):
        flash_attn_func(*tensors(device, BATCH, LENGTH, width=width, dtype=dtype))

    with pytest.raises(PredictionError, match="does not run here") as refused:
        trace(calls(run), steps=1)
    assert str(dtype) in refused.value.got


def test_the_deterministic_backward_pass_is_not_covered():
    with pytest.raises(PredictionError, match="deterministic"):
        trace(calls(lambda device: dense(device, deterministic=True)), steps=1)


@pytest.mark.parametrize(("tokens", "kept"), [("most", TOKENS), ("fewest", BATCH)])
def test_places_of_tokens(tokens, kept):
    def run(device):
        mask = torch.ones(BATCH, LENGTH, device=device, dtype=torch.bool)
        places, sums, longest = unpad_data(mask, tokens=tokens)
        assert (places.shape, sums.shape, longest) == ((kept,), (BATCH + 1,), LENGTH)

    assert allocations(run, operator="aten::new_empty") == [8 * kept]


def names():
    return [
        getattr(utils, name)
        for name in ("_lazy_imports", "_get_unpad_data", *package_module._LOADED)
    ]


def test_transformers_finds_it_only_inside():
    before, check = names(), utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2].copy()
    with flash_attention_installed((8, 0)):
        (functions, _) = utils.lazy_import_flash_attention("flash_attention_2")
        assert functions[:2] == (flash_attn_func, flash_attn_varlen_func)
    assert names() == before
    assert utils._loaded_implementation is None
    assert utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2] == check


def test_sequences_that_were_packed_by_the_collator_are_of_various_lengths():
    """`DataCollatorWithFlattening` says where sequences begin, and transformers then calls the second function."""

    def run(device):
        sums = torch.ones(BATCH + 1, device=device, dtype=torch.int32)
        starts = {
            "cu_seq_lens_q": sums,
            "cu_seq_lens_k": sums,
            "max_length_q": 9,
            "max_length_k": 9,
        }
        name = {"attn_implementation": "flash_attention_2"}
        with flash_attention_installed((8, 0)):
            of = tensors(device, 1, TOKENS)
            return utils._flash_attention_forward(*of, None, TOKENS, True, **starts, **name)

    (kernel,) = (
        kernel
        for kernel in trace(calls(run, backward=True), steps=1).kernels
        if kernel.operator == BACKWARD
    )
    assert kernel.sizes == (BATCH, HEADS, TOKENS, TOKENS, WIDTH, KEY_HEADS)
    assert kernel.traits == (HALF, 1)


def test_an_older_card_is_refused():
    with (
        pytest.raises(PredictionError, match="Ampere") as refused,
        flash_attention_installed((7, 5)),
    ):
        pass
    assert refused.value.got == "7.5"


def test_a_name_that_transformers_no_longer_has_is_named(monkeypatch):
    monkeypatch.delattr(utils, "_get_unpad_data")
    with pytest.raises(PatchError) as missing, flash_attention_installed((8, 0)):
        pass
    assert missing.value.where.endswith("._get_unpad_data")


# Whole cells


def traced(attention, *, model="llama", target=None, **settings):
    cell = traced_cell(model, attention, **({"dtype": "bfloat16"} | settings))
    return trace_trainer(cell, target or Target(padding=False), steps=2, evaluation=False)


@pytest.mark.parametrize("model", ["bert", "distilbert", "llama", "gpt2"])
def test_without_padding_it_takes_what_torch_s_own_kernel_takes(model):
    """The same kernel, but for the states of the random generator: torch keeps 8 bytes more per call."""
    own = traced("sdpa", model=model, target=Target(padding=False, attention="flash"))
    package = traced("flash_attention_2", model=model)
    assert 0 <= own.peak_bytes - package.peak_bytes <= 8 * LAYERS
    assert not any("scaled_dot" in site.operator for site in package.sites)


def test_the_name_of_the_hub_is_the_same():
    by_hub = traced("kernels-community/flash-attn2")
    assert by_hub.same_events(traced("flash_attention_2"))


def in_attention(found):
    return {site.operator for site in found.sites if site.module.endswith("self_attn")}


def test_padding_is_removed_and_put_back():
    most, fewest = (
        traced("flash_attention_2", target=Target(tokens=tokens)) for tokens in ("most", "fewest")
    )
    plain = traced("flash_attention_2")
    gathered = ["aten::index" in in_attention(found) for found in (most, fewest, plain)]
    assert gathered == [True, True, False]
    assert fewest.peak_bytes < most.peak_bytes
    # The states of queries, keys and values that are left, and the output, of one layer at least.
    left = BATCH_TOKENS * 64 * HALF
    assert most.peak_bytes - fewest.peak_bytes > 2 * left


BATCH_TOKENS = 8 * 64  # of `traced_cell`


def test_a_trace_of_a_processor_is_refused():
    with pytest.raises(PredictionError, match="as on a card only"):
        traced("flash_attention_2", target=Target(device="cpu"))


def test_an_allocation_per_layer_and_step():
    found = traced("flash_attention_2")
    made = [
        int(found.nbytes[row])
        for row, (kind, _, site) in enumerate(found.rows())
        if kind == Kind.ALLOCATE and found.sites[site].operator == FORWARD
    ]
    output, sums = 8 * 64 * 64 * HALF, 8 * 64 * 4 * FLOAT
    assert made == [output, sums, STATE] * LAYERS * 2
