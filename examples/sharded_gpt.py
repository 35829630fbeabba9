"""The loop of `gpt.py` on several GPUs: `ftbench predict examples/sharded_gpt.py:make_step --gpus 8 --gpu h100`.

`make_step` shards each layer over the ranks of the mesh with FSDP2, and `replicated` copies the model to each with
DistributedDataParallel. Both are what a script calls that `torchrun` starts.
"""

import torch
from gpt import GPT, VOCABULARY
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def make_step(device, mesh, batch=4, length=512, width=768, layers=12, heads=12, micro_batches=1):
    """Return a function that runs one training step of a sharded GPT on random tokens."""
    with torch.device("meta"):
        model = GPT(width, layers, heads, length)
    for layer in model.body.layers:
        fully_shard(layer, mesh=mesh, mp_policy=BFLOAT16)
    fully_shard(model, mesh=mesh, mp_policy=BFLOAT16)
    model.to_empty(device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    tokens = torch.randint(VOCABULARY, (batch, length + 1), device=device)

    def step():
        for micro_batch in range(micro_batches):
            model.set_requires_gradient_sync(micro_batch == micro_batches - 1)
            loss = loss_of(model, tokens)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def replicated(device, batch=4, length=512, width=768, layers=12, heads=12, micro_batches=1):
    """Return a function that runs one training step of a GPT that every rank has a copy of."""
    model = GPT(width, layers, heads, length).to(device)
    model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    tokens = torch.randint(VOCABULARY, (batch, length + 1), device=device)

    def step():
        for micro_batch in range(micro_batches):
            model.require_backward_grad_sync = micro_batch == micro_batches - 1
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = loss_of(model, tokens)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def loss_of(model, tokens):
    """Return the mean loss of the next tokens, from scores in the model's type."""
    scores = model(tokens[:, :-1])
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
