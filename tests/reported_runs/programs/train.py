"""A training loop with the features of the list: `ftbench predict tests/.../train.py:make_step --arg task=mlm`.

Plain PyTorch, with the packages that such loops use: transformers, peft, bitsandbytes.
"""

import contextlib
import functools

import bitsandbytes
import models
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_CHUNKS = 8


def make_step(
    device,
    task="causal",
    architecture="bert",
    multilabel=False,
    truehalf=False,
    amp16=False,
    lora=False,
    quant4=False,
    ckpt=False,
    opt8=False,
    oib=False,
    offload=False,
    chunkedce=False,
    packing=False,
    fairseqfp16=False,
    evaluated_batches=0,
    private=False,
):
    """Return a function that runs one training step, and an evaluation if that has batches."""
    model = models.TASKS[task](architecture=architecture, multilabel=multilabel).to(device)
    if truehalf or fairseqfp16:
        model = model.to(torch.bfloat16 if truehalf else torch.float16)
    if quant4:
        _quantize(model.inner)
    if lora:
        config = LoraConfig(r=8, target_modules="all-linear")
        model.inner = get_peft_model(model.inner, config)
    if ckpt:
        model.inner.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    batch = model.batch(device)
    batch = _in_half(batch, model) if truehalf or fairseqfp16 else batch
    if packing:
        batch = _in_one_row(batch, device)
    make = bitsandbytes.optim.AdamW8bit if opt8 else torch.optim.AdamW
    update = _masters(model, make) if fairseqfp16 else _updates(model, make, in_backward=oib)
    loss_of = functools.partial(_loss_in_chunks, model) if chunkedce else lambda of: model(of)[0]
    scaler = torch.amp.GradScaler("cuda", enabled=amp16)

    def step():
        with _around_forward(amp16=amp16, offload=offload):
            loss = _private_gradients(model, batch) if private else loss_of(batch)
        if not private:
            scaler.scale(loss).backward()
        update(scaler)
        kept = []
        for _ in range(evaluated_batches):  # all outputs stay on the card until the last batch
            with torch.no_grad():
                kept.append(model(batch)[1])
        return loss.detach()

    return step


def _around_forward(*, amp16, offload):
    stack = contextlib.ExitStack()
    if amp16:
        stack.enter_context(torch.autocast("cuda", dtype=torch.float16))
    if offload:  # what the backward pass needs waits on the host
        stack.enter_context(torch.autograd.graph.save_on_cpu())
    return stack


def _updates(model, make, *, in_backward):
    """Return the function that updates the parameters; each within the backward pass, or all after it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not in_backward:
        optimizer = make(trained, lr=1e-4)

        def update(scaler):
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return update
    optimizers = {parameter: make([parameter], lr=1e-4) for parameter in trained}

    def at_once(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(at_once)
    return lambda scaler: None


def _masters(model, make):
    """Return the update of a flat copy in float32 of all weights in float16, as fairseq has it."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    flat = nn.Parameter(torch.cat([one.detach().flatten().float() for one in own]))
    optimizer = make([flat], lr=1e-4)

    def update(scaler):
        flat.grad = torch.cat([one.grad.flatten().float() for one in own])
        optimizer.step()
        at = 0
        for one in own:
            one.data.copy_(flat.data[at : at + one.numel()].view_as(one))
            at += one.numel()
            one.grad = None

    return update


def _loss_in_chunks(model, batch):
    """Return the loss of the next tokens; the scores of a chunk of tokens are made again for its gradient."""
    hidden = model.inner.get_base_model() if hasattr(model.inner, "peft_config") else model.inner
    states = hidden.model(batch["input_ids"])[0].flatten(0, 1)

    def loss(of, tokens):
        return functional.cross_entropy(hidden.lm_head(of).float(), tokens, reduction="sum")

    parts = zip(states.chunk(_CHUNKS), batch["labels"].flatten().chunk(_CHUNKS), strict=True)
    losses = [checkpoint(loss, *part, use_reentrant=False) for part in parts]
    return torch.stack(losses).sum() / len(states)


def _in_one_row(batch, device):
    """Return the texts of a batch in one row, whose positions say where each begins."""
    rows, length = batch["input_ids"].shape
    packed = {name: values.reshape(1, -1) for name, values in batch.items()}
    positions = torch.arange(length, device=device).repeat(rows)[None]
    return packed | {"position_ids": positions}


def _in_half(batch, model):
    """Return a batch whose real numbers have the type of the weights."""
    dtype = next(iter(model.parameters())).dtype

    def halved(values):
        return values.to(dtype) if values.is_floating_point() else values

    if isinstance(batch, dict):
        return {name: halved(values) for name, values in batch.items()}
    return [halved(values) for values in batch]


class _Linear4bit(nn.Linear):
    """A layer whose weight has 4 bits (NF4) and is not trained."""

    def __init__(self, of):
        nn.Module.__init__(self)
        self.in_features, self.out_features = of.in_features, of.out_features
        self.bias = of.bias
        self.packed, self.state = bitsandbytes.functional.quantize_4bit(
            of.weight.data, compress_statistics=True, quant_type="nf4"
        )

    @property
    def weight(self):
        """Return the packed weight, which tells peft device and type."""
        return self.packed

    def forward(self, inputs):
        """Return the product with the weight, which is unpacked for it."""
        return bitsandbytes.matmul_4bit(
            inputs, self.packed.t(), quant_state=self.state, bias=self.bias
        )


def _quantize(model):
    """Replace the linear layers of the body, and freeze all that is left."""
    model.requires_grad_(False)
    for parent in list(model.model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, _Linear4bit(child))


def _private_gradients(model, batch):
    """Set gradients of which each example's own has a norm of one at most (DP-SGD); return the mean loss."""
    weights = {name: one.detach() for name, one in model.named_parameters()}

    def loss(of, example):
        one = {name: values[None] for name, values in example.items()}
        return torch.func.functional_call(model, of, (one,))[0]

    each = torch.func.vmap(
        torch.func.grad_and_value(loss), in_dims=(None, 0), randomness="different"
    )
    gradients, losses = each(weights, batch)
    norms = torch.stack([one.flatten(1).norm(dim=1) for one in gradients.values()]).norm(dim=0)
    scale = (1 / (norms + 1e-6)).clamp(max=1)
    for name, parameter in model.named_parameters():
        own = gradients[name]
        parameter.grad = torch.einsum("b...,b->...", own, scale) + torch.randn_like(parameter)
    return losses.mean()
