"""Training steps that both the emulated card and the fake CUDA device are asked to trace."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Literal

import torch

Model = Literal["bert", "distilbert", "gpt2", "opt", "llama", "llama-mha", "t5", "medley", "asking"]
Optimizer = Literal["adamw", "adamw-fused", "sgd", "adafactor"]
Precision = Literal["fp32", "bf16", "fp16", "pure-bf16"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One training step's recipe, small enough to be traced in a second."""

    model: Model = "bert"
    attention: Literal["eager", "sdpa"] = "eager"
    kernel: Literal["math", "efficient", "flash", "cudnn"] = "math"
    padding: bool = True
    precision: Precision = "fp32"
    optimizer: Optimizer = "adamw"
    scaler: bool = False
    clip: bool = False
    checkpointing: bool = False
    accumulation: int = 1
    batch: int = 3
    length: int = 40
    steps: int = 2

    def __str__(self) -> str:
        """Return the name that a test report shows: the model, and what is not the default."""
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)[1:]
            if getattr(self, field.name) != field.default
        ]
        return "-".join((self.model, *changed))


def factory(case: Case) -> Callable[[torch.device], Callable[[], Any]]:
    """Return what builds the case's model, optimizer and batch on a device, for `tracer.trace`."""

    def build(device: torch.device) -> Callable[[], Any]:
        model = _model(case).to(device)
        if case.precision == "pure-bf16":
            model = model.to(torch.bfloat16)
        model.train()
        if case.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = _optimizer(case, model)
        batch = _batch(case, device)
        scaler = torch.amp.GradScaler(device.type, enabled=case.scaler)

        def step() -> Any:
            for _ in range(case.accumulation):
                with _autocast(case, device):
                    outputs = model(**batch)
                scaler.scale(outputs.loss / case.accumulation).backward()
            if case.clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            return outputs

        return step

    return build


def _autocast(case: Case, device: torch.device) -> Any:
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if case.precision not in types:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=types[case.precision])


def _optimizer(case: Case, model: torch.nn.Module) -> torch.optim.Optimizer:
    parameters = model.parameters()
    if case.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    if case.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)
    if case.optimizer == "adamw-fused":
        return torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    return torch.optim.AdamW(parameters, lr=1e-3)


def _batch(case: Case, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch that was made on the host and copied, as a loader's is."""
    shape = (case.batch, case.length)
    tokens = torch.ones(shape, dtype=torch.long)
    mask = torch.ones(shape, dtype=torch.long)
    labels = tokens.clone() if case.model == "t5" else torch.zeros(case.batch, dtype=torch.long)
    batch = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


# Two layers, width 64, four heads: every path of a large model, and few seconds for all of them.
_SIZES: Mapping[str, Mapping[str, Any]] = {
    "bert": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
    },
    "distilbert": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": 0},
    "opt": {
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 128,
        "max_position_embeddings": 128,
    },
    "llama": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "pad_token_id": 0,
    },
    "t5": {
        "d_model": 64,
        "d_kv": 16,
        "num_layers": 2,
        "num_heads": 4,
        "d_ff": 128,
        "decoder_start_token_id": 0,
    },
}


class Medley(torch.nn.Module):
    """Operators that differ between a CPU and a card, and that the models above do not all have."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(500, width)
        self.attend = torch.nn.MultiheadAttention(width, 3, dropout=0.125, batch_first=True)
        self.norms = torch.nn.ModuleList([torch.nn.RMSNorm(width), torch.nn.LayerNorm(width)])
        self.gates = torch.nn.ModuleList([torch.nn.SiLU(), torch.nn.Mish(), torch.nn.PReLU()])
        self.mix = torch.nn.Parameter(torch.ones(width, width))
        self.bilinear = torch.nn.Bilinear(width, width, 7)
        self.score = torch.nn.Linear(7, 1)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> SimpleNamespace:
        """Return the loss, and something of the forward pass that the loop keeps."""
        hidden = self.embed(input_ids)
        hidden = hidden + self.attend(hidden, hidden, hidden, need_weights=False)[0]
        for norm in self.norms:
            hidden = norm(hidden)
        for gate in self.gates:
            hidden = gate(hidden)
        hidden = torch.einsum("bsi,ij->bsj", hidden, self.mix)
        weights = torch.nn.functional.softmax(hidden, dim=1, dtype=torch.float32)
        weights = torch.nn.functional.log_softmax(
            weights.to(hidden.dtype), dim=-1, dtype=torch.float32
        )
        hidden = torch.addcmul(hidden, weights, hidden).cumsum(dim=1)
        masked = attention_mask.clone()
        masked[:, 0] = 0
        hidden = hidden.masked_fill(masked[..., None] == 0, 0.0)
        pooled = torch.stack([hidden.mean(dim=1), hidden.norm(dim=1)]).sum(dim=0)
        pooled = pooled.to(self.mix.dtype)
        scores = self.score(self.bilinear(pooled, pooled.exp().to(self.mix.dtype)))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels.float())
        return SimpleNamespace(loss=loss + torch.norm(pooled) + pooled.pow(2).sum(), scores=scores)


class Asking(torch.nn.Module):
    """Takes another way on a card than on a CPU wherever code can ask a tensor or its device."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(500, width)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(width, width) for _ in range(4)])
        self.score = torch.nn.Linear(width, 2)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> SimpleNamespace:
        """Return the loss, and a tensor as large as the number of answers that are a card's."""
        hidden = self.embed(input_ids)
        with torch.autocast(
            hidden.device.type, dtype=torch.bfloat16, enabled=hidden.device.type == "cuda"
        ):
            for layer in self.layers[:2]:
                hidden = layer(hidden)
            inside = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        if hidden.is_cuda:
            hidden = hidden.exp()
        answers = (
            hidden.is_cuda,
            not hidden.is_cpu,
            hidden.get_device() == 0,
            str(hidden.device) == "cuda:0",
            hidden.device == next(self.parameters()).device,
            hidden.to("cuda") is hidden,
            hidden.cuda() is hidden,
            hidden.to(device=torch.device("cuda", 0)) is hidden,
            hidden.float().type() == "torch.cuda.FloatTensor",
            *(inside == (True, torch.bfloat16),),
            not torch.is_autocast_enabled("cuda"),
            hidden.cpu().is_cpu,
            torch.ones(2, device="cuda").is_cuda,
            torch.ones(2).to(hidden.device).is_cuda,
        )
        kept = torch.empty(sum(answers), device="cuda")
        with torch.device("cuda"):
            kept = torch.cat([kept, torch.arange(3), torch.tensor([1.0, 2.0])])
        for layer in self.layers[2:]:
            hidden = layer(hidden.float())
        loss = torch.nn.functional.cross_entropy(self.score(hidden.mean(dim=1)), labels)
        return SimpleNamespace(loss=loss, kept=kept)


def _model(case: Case) -> torch.nn.Module:
    if case.model in ("medley", "asking"):
        return Medley() if case.model == "medley" else Asking()
    import transformers

    family, _, variant = case.model.partition("-")
    sizes = {"vocab_size": 500, **_SIZES[family]}
    if variant == "mha":
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    config = transformers.AutoConfig.for_model(family, **sizes)
    kind = (
        transformers.AutoModelForSeq2SeqLM
        if family == "t5"
        else transformers.AutoModelForSequenceClassification
    )
    return kind.from_config(config, attn_implementation=case.attention)
