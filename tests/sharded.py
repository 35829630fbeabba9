"""Sharded training steps of a small Llama, as a user of torch.distributed writes them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
# Rows that no number of ranks above 1 divides: shards are uneven.
WIDTH, HIDDEN, VOCABULARY, LAYERS = 64, 197, 101, 2
COLUMNS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
)
ROWS = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Run:
    """A training step: its shape, its sharding, its optimizer."""

    batch: int = 2
    length: int = 64
    layers: int = LAYERS
    hidden: int = HIDDEN
    fsdp: dict[str, Any] = field(default_factory=dict)  # arguments of `fully_shard`
    checkpointing: bool = False
    accumulation: int = 1
    synchronized: bool = False  # also the gradients of all but the last micro-batch
    prefetch: int = 0  # explicit prefetching of so many blocks
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the optimizer
    clip: float = 0.0
    on_meta: bool = True  # built on meta, and only the shards are allocated


def llama(run: Run) -> LlamaForCausalLM:
    """Return the model: RMSNorm, rotary embeddings, fused attention."""
    config = LlamaConfig(
        num_hidden_layers=run.layers,
        hidden_size=WIDTH,
        intermediate_size=run.hidden,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def fully_sharded(run: Run) -> Callable[[torch.device, Any], Callable[[], Any]]:
    """Return a factory of FSDP2: each block, then the rest."""

    def factory(device, mesh):
        with torch.device("meta") if run.on_meta else device:
            model = llama(run)
        shard(model, mesh, run)
        if run.on_meta:
            model.to_empty(device=device)
        return training(model, device, run)

    return factory


def shard(model: LlamaForCausalLM, mesh: Any, run: Run) -> None:
    """Shard each block, then the rest."""
    layers = model.model.layers
    for index, block in enumerate(layers):
        if run.checkpointing:
            layers[index] = checkpoint_wrapper(block, preserve_rng_state=False)
        fully_shard(layers[index], mesh=mesh, **run.fsdp)
    fully_shard(model, mesh=mesh, **run.fsdp)
    for index, block in enumerate(layers if run.prefetch else ()):
        block.set_modules_to_forward_prefetch([*layers[index + 1 : index + 1 + run.prefetch]])


def flat(run: Run, **options: Any) -> Callable[[torch.device], Callable[[], Any]]:
    """Return a factory of FSDP1, `FullyShardedDataParallel`, with these options."""

    def factory(device):
        with device:
            model = llama(run)
        for index, block in enumerate(model.model.layers if run.checkpointing else ()):
            model.model.layers[index] = checkpoint_wrapper(block, preserve_rng_state=False)
        wrap = functools.partial(
            transformer_auto_wrap_policy, transformer_layer_cls={LlamaDecoderLayer}
        )
        model = FullyShardedDataParallel(model, auto_wrap_policy=wrap, device_id=device, **options)
        return training(model, device, run)

    return factory


def replicated(
    run: Run, hook: Callable[..., Any] | None = None, **options: Any
) -> Callable[[torch.device], Callable[[], Any]]:
    """Return a factory of DistributedDataParallel with these options, and a communication hook."""

    def factory(device):
        with device:
            model = llama(run)
        if run.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = DistributedDataParallel(model, **options)
        if hook is not None:
            model.register_comm_hook(None, hook)
        return training(model, device, run)

    return factory


def tensor_parallel(run: Run, *, and_fsdp: bool = False) -> Callable[[torch.device, Any], Any]:
    """Return a factory that splits each block's matrices, and shards the rest over another dimension."""

    def factory(device, mesh):
        with device:
            model = llama(run)
        plan = {name: ColwiseParallel() for name in COLUMNS}
        plan.update({name: RowwiseParallel() for name in ROWS})
        for block in model.model.layers:
            parallelize_module(block, mesh["tensor"] if and_fsdp else mesh, plan)
        if and_fsdp:
            shard(model, mesh["data"], run)
        return training(model, device, run)

    return factory


def sharded_in_loading(run: Run, **sizes: int) -> Callable[[torch.device], Any]:
    """Return a factory that lets transformers shard a model that it loads, by the model's own plans."""

    def factory(device):
        with device:
            whole = llama(run)
        model = LlamaForCausalLM.from_pretrained(
            None,
            config=whole.config,
            state_dict=whole.state_dict(),
            distributed_config=DistributedConfig(**sizes),
        )
        del whole
        return training(model, device, run)

    return factory


def training(model: Any, device: torch.device, run: Run) -> Callable[[], Any]:
    """Return a step: the micro-batches, then the optimizer."""
    optimizer = run.optimizer(model.parameters(), lr=1e-4, **run.options)
    model.train()
    ids = torch.zeros(run.batch, run.length, dtype=torch.long, device=device)

    def step():
        for micro in range(run.accumulation):
            last = micro == run.accumulation - 1
            if run.accumulation > 1:
                synchronize(model, last or run.synchronized)
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        if run.clip and isinstance(model, FullyShardedDataParallel):
            model.clip_grad_norm_(run.clip)
        elif run.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def synchronize(model: Any, now: bool) -> None:
    """Let the next backward pass reduce gradients, or keep them."""
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = now  # as `no_sync` sets it
    elif isinstance(model, FullyShardedDataParallel):
        for unit in FullyShardedDataParallel.fsdp_modules(model):
            unit._sync_gradients = now  # as `no_sync` sets it
    else:
        model.set_requires_gradient_sync(now)
