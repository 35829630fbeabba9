"""LoRA beside a body in NF4: as large as the real model of bitsandbytes on a processor, and its scratch."""

import math

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.plan.parallel import Parallel
from ftbench.plan.sources import resolve_model
from ftbench.prediction.simulate.workspaces.four_bits import four_bit_product_workspace
from ftbench.prediction.trace.events import FORWARD, SETUP, Kind
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.trace_trainer import trace_trainer
from ftbench.prediction.trace.tracer import Target
from ftbench.prediction.trace.work import WorkCounter
from ftbench.worker.recipe.method import with_method
from ftbench.worker.recipe.model import load_model
from ftbench.worker.recipe.quantization import QuantizedBody
from tests.factories import profile
from tests.factories import task as task_of_texts
from tests.traced import LAYERS, traced_cell
from tests.unit.prediction.simulate.workspaces.scratch import sizes

FLOAT, BLOCK, OF_BLOCKS = 4, 64, 256
WIDTH, INNER = 64, 128
# Query and output; key and value, which share heads; gate, up and down.
LINEAR = LAYERS * (2 * [WIDTH * WIDTH] + 2 * [WIDTH * WIDTH // 2] + 3 * [WIDTH * INNER])


def cell(model="llama", **settings):
    half = {"dtype": "bfloat16", "bf16": True, "method": "lora", "quantization": "nf4"}
    return traced_cell(model, **(half | settings))


def traced(of, **options):
    return trace_trainer(of, Target(padding=False), steps=1, evaluation=False, **options)


def real_model(of):
    """The model of a run, on the processor."""
    body = QuantizedBody(torch.bfloat16, torch.device("cpu"))
    task = task_of_texts()
    loaded = load_model(
        of.model,
        ("0", "1"),
        task,
        attn_implementation="sdpa",
        dtype=of.dtype,
        quantized=body,
        pad_token_id=0,
    )
    return with_method(loaded.model, "lora", task, of.lora)


def in_memory(model):
    """The bytes of all that a model keeps: parameters, buffers and the scales of its weights."""
    kept = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            kept += [t for t in (state.absmax, state.code, state.offset) if t is not None]
            state = state.state2
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(storages.values())


def of_role(found, role):
    roles = found.roles()
    return sum(
        int(nbytes)
        for (kind, block, _), nbytes in zip(found.rows(), found.nbytes, strict=True)
        if kind == Kind.ALLOCATE and roles[block] == role
    )


@pytest.mark.parametrize("model", ["llama", "bert", "distilbert", "gpt2"])
def test_it_is_as_large_as_the_real_model(model):
    of = cell(model)
    assert of_role(traced(of), "parameters") == in_memory(real_model(of))


def test_weights_have_half_a_byte_and_their_scales():
    packed = sum(n // 2 for n in LINEAR)
    scales = sum(n // BLOCK + FLOAT * math.ceil(n / BLOCK / OF_BLOCKS) for n in LINEAR)
    codes = len(LINEAR) * (16 + 1 + 256) * FLOAT  # values of 4 bits, the offset, values of 8 bits
    full = traced(cell(quantization="none", dtype="float32", bf16=False))
    saved = of_role(full, "parameters") - of_role(traced(cell()), "parameters")
    assert saved == FLOAT * sum(LINEAR) - packed - scales - codes


def test_loading_takes_one_weight_at_most_as_a_whole():
    found = traced(cell(config={"intermediate_size": 4096}))
    setup = [row for row, site in enumerate(found.site) if found.sites[site].phase == SETUP]
    kept = found.live_bytes[setup[-1]]
    whole = 64 * 4096 * 2
    assert found.live_bytes[setup].max() < kept + 3 * whole


def test_the_real_model_learns():
    model = real_model(cell())
    ids = torch.ones(2, 8, dtype=torch.int64)
    loss = model(input_ids=ids, labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert torch.isfinite(loss)
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all("lora_" in name or "score" in name for name in trained)
    assert len(trained) == 2 * 7 * LAYERS + 1


def test_the_head_and_the_embedding_stay_whole():
    model = real_model(cell())
    kinds = {name.rpartition(".")[2]: type(m).__name__ for name, m in model.named_modules()}
    assert kinds["base_layer"] == "Linear4bit"
    assert kinds["embed_tokens"] == "Embedding"
    heads = [
        m for name, m in model.named_modules() if name.endswith("score.modules_to_save.default")
    ]
    assert [type(head) for head in heads] == [torch.nn.Linear]
    assert {head.weight.dtype for head in heads} == {torch.float32}


def test_a_product_has_the_whole_weight_as_scratch():
    found = traced(cell())
    kernels = [k for k in found.kernels if k.operator == "bitsandbytes::gemm_4bit"]
    assert len(kernels) == len(LINEAR)
    assert kernels[0].sizes == (8 * 64, WIDTH, WIDTH)
    assert kernels[0].traits == (2,)
    scales = 4096 * 11008 // BLOCK * FLOAT
    made = sizes(four_bit_product_workspace(5, 11008, 4096, element_bytes=2))
    assert made == {"absmax_dq": scales, "absmax": scales, "B_dq": 4096 * 11008 * 2}
    assert four_bit_product_workspace(4, 11008, 4096, element_bytes=2) == ()


def test_products_of_4_bits_are_work():
    """As many as of the same model in 16 bits, whose weights are multiplied as they are."""

    def flops(of):
        counter = WorkCounter()
        traced(of, watch=counter.watch)
        return counter.work_of(1, documents=1, batches=1).flops

    assert flops(cell()) == flops(cell(quantization="none"))


def test_no_weight_is_whole_between_the_passes():
    found = traced(cell(config={"intermediate_size": 4096}))
    forward = [
        int(found.nbytes[row])
        for row, (kind, _, site) in enumerate(found.rows())
        if kind == Kind.ALLOCATE and found.sites[site].phase == FORWARD
    ]
    assert 64 * 4096 * 2 not in forward


def test_a_trace_of_a_processor_is_refused():
    with pytest.raises(PredictionError, match="as on a card only") as refused:
        trace_trainer(cell(), Target(device="cpu"), steps=1)
    assert (refused.value.where, refused.value.got) == ("quantization", "nf4")


def test_random_weights_are_laid_out_as_those_of_a_checkpoint():
    """transformers quantizes a checkpoint while it loads it; random weights are quantized by the recipe."""
    pretrained = resolve_model(profile().workload)
    body, task = QuantizedBody(torch.bfloat16, torch.device("cpu")), task_of_texts()
    kept = []
    for weights in ("pretrained", "random"):
        model = load_model(
            pretrained.model_copy(update={"weights": weights}),
            ("0", "1"),
            task,
            attn_implementation="sdpa",
            dtype="bfloat16",
            quantized=body,
        ).model
        layers = [type(m).__name__ for m in model.modules() if hasattr(m, "source_cls")]
        assert layers == ["Linear4bit"] * (6 * 6 + 1)  # six layers, and the pooler
        kept.append((in_memory(model), {name: p.dtype for name, p in model.named_parameters()}))
    assert kept[0] == kept[1]


def test_fsdp1_shards_packed_weights_and_norms_of_a_layer_together():
    """bitsandbytes packs into bytes unless told otherwise, which FSDP1 cannot flatten with norms in bfloat16."""
    cards = 2
    parallel = Parallel(strategy="fsdp1", use_orig_params=True)
    shared = {"num_processes": cards, "strategy": "fsdp1", "parallel": parallel}
    found = traced(cell().model_copy(update=shared), ranks=Ranks(cards))
    of_layer = (sum(LINEAR) // LAYERS // 2 + 2 * WIDTH * 2) // cards
    shards = [
        found.sites[site].phase
        for (kind, _, site), nbytes in zip(found.rows(), found.nbytes.tolist(), strict=True)
        if (kind, nbytes) == (Kind.ALLOCATE, of_layer)
        and found.sites[site].operator == "aten::clone"
    ]
    assert shards == [SETUP] * LAYERS
