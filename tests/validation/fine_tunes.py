"""Fine-tunes by transformers' Trainer on one card, as rows of a file, through ftbench's own cells.

Each row is a model, a method (full or LoRA), a recipe and a batch of packed texts. The names of models stand for
public shapes, in `models/`. What the versions of the rows do otherwise than the installed ones is in `as_it_was`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import peft
import torch
import transformers
from torch.nn import functional
from transformers.loss import loss_utils

from ftbench.base.errors import FtbenchError
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import find_gpu
from ftbench.plan.profile_file import build_profile
from ftbench.plan.resolve import resolve
from ftbench.predict.simulate.cards import Card, card_of
from ftbench.predict.simulate.simulation import SCENARIOS, simulate_all
from ftbench.predict.trace import patches
from ftbench.predict.trace.trace_trainer import trace_trainer
from ftbench.predict.trace.tracer import Target

MODELS = Path(__file__).parent / "models"
TORCH = (2, 4)
STEPS, WORKERS = 2, 2
_CASTS_IN_LOSS = (4, 46)


class Row(NamedTuple):
    """What decides a prediction."""

    model: str
    method: str
    framework: str
    dtype: str
    bf16: bool
    cards: int
    batch: int
    length: int
    transformers: tuple[int, ...]
    lora_r: int
    modules: tuple[str, ...]


class NotPredictedError(FtbenchError):
    """A row that cannot be predicted, with the reason."""


# What each framework's configuration adds to the plain recipe; fused operators and GPTQ have no entry.
_QUANTIZED = {"quantization": "nf4"}
_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "baseline-peft-bnb": _QUANTIZED,
    "accelerated-peft-bnb": _QUANTIZED,
}


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own; rows alike are predicted once."""
    wanted = [_row(row) for _, row in rows.iterrows()]
    cards = [_card(row) for _, row in rows.iterrows()]
    jobs = list(dict.fromkeys(zip(wanted, cards, strict=True)))
    done: dict[tuple[Row, Card], dict[str, object]] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        answers = pool.map(_predict, *zip(*jobs, strict=True))
        for number, (job, found) in enumerate(zip(jobs, answers, strict=True), start=1):
            done[job] = found
            print(f"{number}/{len(jobs)} {job[0].model} {job[0].framework}", file=sys.stderr)
    columns = [done[pair] for pair in zip(wanted, cards, strict=True)]
    return pd.concat([rows, pd.DataFrame(columns, index=rows.index)], axis=1)


def _row(row: Any) -> Row:
    return Row(
        model=str(row["model"]),
        method=str(row["method"]),
        framework=str(row["framework_config"]),
        dtype=str(row["torch_dtype"]),
        bf16=str(row["bf16_flag"]) == "True",
        cards=int(float(row["num_gpus"])),
        batch=int(float(row["per_device_batch"])),
        length=int(float(row["max_seq_len"])),
        transformers=_version(str(row["versions"])),
        lora_r=int(float(row["lora_r"] or 0)),
        modules=tuple(str(row["target_modules"]).split()),
    )


def _version(versions: str) -> tuple[int, ...]:
    """Return the version of transformers among those of a row: `torch 2.4.1 transformers 4.48.1 ...`."""
    _, _, rest = versions.partition("transformers ")
    return tuple(int(part) for part in rest.split()[0].split(".")) if rest else ()


def _config(row: Row) -> dict[str, Any]:
    """Return the config of a row's model; raises NotPredictedError."""
    file = _config_file(row)
    if not file.is_file():
        raise NotPredictedError("no config of this model", got=row.model)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _config_file(row: Row) -> Path:
    return MODELS / f"{row.model.replace('/', '--')}.json"


def _card(row: Any) -> Card:
    return card_of(find_gpu(str(row["gpu"])), TORCH)


def cell_of(row: Row) -> Cell:
    """Return the cell of a row; raises NotPredictedError."""
    if row.cards != 1:
        raise NotPredictedError("several cards", got=str(row.cards))
    config = _config(row)
    # A text cannot be longer than the model has positions; GPT-BigCode's rows were cut at theirs.
    length = min(row.length, config.get("n_positions", row.length))
    if row.framework not in _RECIPES:
        raise NotPredictedError("not covered: this framework's own kernels", got=row.framework)
    lora: dict[str, Any] = {"lora_dropout": 0.0}
    if row.method == "lora":
        names = "|".join(row.modules)
        lora |= {"r": row.lora_r, "target_modules": rf".*\.({names})"}
    profile = build_profile(
        {
            "name": "row",
            "dtype": row.dtype,
            "attn_implementation": "flash_attention_2",
            "packing": "concatenate",
            "method": row.method,
            **_RECIPES[row.framework],
            "lora": lora,
            "workload": {
                "task": "causal-lm",
                "model": str(_config_file(row)),
                "tokenizer": "offline:minilm-l6",
                "weights": "random",
                "dataset": "synthetic:full-length",
                "eval_size": 1,
            },
            "grid": [
                {
                    "max_length": [length],
                    "per_device_train_batch_size": [row.batch],
                    "train_size": [4 * row.batch],
                }
            ],
            "training": {
                "optim": "adamw_torch",
                "gradient_checkpointing": True,
                "bf16": row.bf16,
            },
        },
        where="row",
    )
    (cell,) = resolve(profile).cells
    return cell


@contextlib.contextmanager
def as_it_was(row: Row) -> Iterator[None]:
    """Let a language model compute its loss, and be prepared, as the libraries of a row did it.

    Before 4.50, all logits but the last of each row were copied, since the view that leaves them out is not
    contiguous. They were cast to float32 before that: from 4.46 on in `ForCausalLMLoss` (loss/loss_utils.py), while
    the caller held the logits of the model's type; before 4.46 by the model, which let go of these. Later versions
    shift the labels instead, and copy no logits. GPT-BigCode casts none (modeling_gpt_bigcode.py of both).
    """

    def loss(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **_: Any) -> Any:
        if _config(row)["model_type"] != "gpt_bigcode":
            given, logits = logits, logits.float()
            if row.transformers < _CASTS_IN_LOSS:
                given.untyped_storage().resize_(0)
            del given
        shifted = logits[..., :-1, :].contiguous()
        wanted = labels[..., 1:].contiguous()
        return functional.cross_entropy(shifted.view(-1, vocab_size), wanted.view(-1))

    with contextlib.ExitStack() as stack:
        stack.enter_context(patches.replaced(loss_utils, "ForCausalLMLoss", lambda _: loss))
        kept = dict(loss_utils.LOSS_MAPPING)
        loss_utils.LOSS_MAPPING["ForCausalLM"] = loss
        stack.callback(loss_utils.LOSS_MAPPING.update, kept)
        if row.framework.startswith("accelerated-peft"):
            # fms-acceleration's plugin leaves norms and embeddings in the model's type.
            stack.enter_context(
                patches.replaced(peft, "prepare_model_for_kbit_training", lambda _: _as_it_is)
            )
        yield


def _as_it_is(model: Any, **_: Any) -> Any:
    return model


def _predict(row: Row, card: Card) -> dict[str, object]:
    """Return the predicted columns of a row."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    began = time.perf_counter()
    try:
        with as_it_was(row):
            trace = trace_trainer(
                cell_of(row),
                Target(compute_capability=card.runtime.compute_capability, padding=False),
                steps=STEPS,
                evaluation=False,
            )
    except FtbenchError as error:
        return {"not_predicted": " ".join(str(error).split())}
    simulated = simulate_all([trace], card.runtime, card.capacities, scenarios=SCENARIOS)
    columns: dict[str, object] = {}
    for name in ("allocated", "reserved"):
        peak = f"peak_{name}_bytes"
        low, high = simulated.interval(peak)
        values = (getattr(simulated.first, peak), low, high)
        for part, value in zip(("", "_low", "_high"), values, strict=True):
            columns[f"predicted_{name}{part}_bytes"] = value
    columns["predicted_oom"] = int(simulated.first.out_of_memory)
    columns["seconds"] = round(time.perf_counter() - began, 3)
    columns["not_predicted"] = ""
    return columns
