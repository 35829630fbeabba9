"""Tests of checkpointing around a unit of FSDP1: the memory of one rank, by what is gathered at once."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers import AutoConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from ftbench.prediction.trace.events import Kind
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.sharding_parts import ALL_GATHER
from ftbench.prediction.trace.tracer import trace
from tests.validation.fms.checkpointing import checkpointed_around_units

LAYERS, WIDTH, INNER, CARDS = 4, 64, 4096, 2


def sharded(device):
    config = AutoConfig.for_model(
        "llama",
        vocab_size=16,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    model = FullyShardedDataParallel(
        model.train(),
        auto_wrap_policy=ModuleWrapPolicy({LlamaDecoderLayer}),
        device_id=torch.device("cuda", 0),
    )
    tokens = torch.zeros(1, 2, dtype=torch.long, device=device)
    return lambda: model(input_ids=tokens).logits.sum().backward()


def gathered(traced):
    """Return how often a layer's parameters are gathered, and of how many layers they are there at once."""
    nbytes = 4 * (4 * WIDTH**2 + 3 * WIDTH * INNER + 2 * WIDTH)
    there, counts = set(), []
    for (kind, block, site), size in zip(traced.rows(), traced.nbytes.tolist(), strict=True):
        if kind == Kind.FREE:
            there.discard(block)
        elif size == nbytes and traced.sites[site].operator == ALL_GATHER:
            there.add(block)
            counts.append(len(there))
    return len(counts), max(counts)


def test_a_unit_is_gathered_to_be_computed_again_and_again_for_its_gradients_without_prefetching():
    """Once in forward and twice in backward; inside of a unit, once in each, and the next one beside it."""
    inside = trace(sharded, steps=1, ranks=Ranks(CARDS))
    with checkpointed_around_units():
        around = trace(sharded, steps=1, ranks=Ranks(CARDS))
    assert gathered(inside) == (2 * LAYERS, 2)
    assert gathered(around) == (3 * LAYERS, 1)
