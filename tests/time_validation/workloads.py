"""The workloads of published step times by name, and the kernels of one step of each.

    nv_{bert_base|bert_large}_{length}_{fp16|fp32}        NVIDIA's BERT on SQuAD (Lambda ran it on many cards)
    hf_{model}_{length}_{fp32|fp16|bf16}                  transformers' Trainer, a text classifier
    hf_bert_large_{accumulated|checkpointed|checkpointed_fp16}    the same, four batches of one at length 512
    bare_{model}_{length}_{train|inf}                     NeuSight's passes in fp32, without an optimizer
    half_{model}_{length}_{eager|sdpa}                    transformers' model pages: a float16 model, plain descent
    vit_{size}_{patch}_{pixels}                           timm's vision transformers under autocast

Traces of two batch sizes and two depths give every other (`ftbench.prediction.trace.kernel_calls`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any
from unittest import mock

from ftbench.base.errors import PredictionError
from ftbench.plan.grid import expand
from ftbench.plan.sources import resolve_model
from ftbench.prediction.trace.events import EVALUATION
from ftbench.prediction.trace.kernel_calls import (
    KernelCall,
    calls_at_batch,
    calls_at_depth,
    kernel_work,
)
from ftbench.prediction.trace.trace_trainer import Batches, trace_trainer
from ftbench.prediction.trace.tracer import STEPS, Target, trace
from ftbench.prediction.trace.work import WorkCounter
from ftbench.records.prediction import PassWork
from tests.factories import data_source, profile
from tests.time_validation import models

_SHALLOW = (2, 4)  # layers of the two traces
_ANCHORS = (2, 4)  # their batch sizes
_FAMILIES: dict[str, str] = {
    "nv": r"nv_(?P<model>bert_base|bert_large)_(?P<length>\d+)_(?P<last>fp16|fp32)",
    "steps_of_four": r"hf_(?P<model>bert_large)_(?P<last>accumulated|checkpointed|checkpointed_fp16)",
    "hf": r"hf_(?P<model>\w+?)_(?P<length>\d+)_(?P<last>fp32|tf32|fp16|bf16)",
    "bare": r"bare_(?P<model>\w+?)_(?P<length>\d+)_(?P<last>train|inf)",
    "half": r"half_(?P<model>\w+?)_(?P<length>\d+)_(?P<last>eager|sdpa)",
    "vit": r"vit_(?P<model>\w+?)_(?P<length>\d+)_(?P<last>\d+)",
}
_OTHERS = {
    "hf_bert_base_128": {"vocab_size": 28996},  # run_glue.py's cased model
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A published workload: its family, the model, the length (a patch of a vision transformer), and the rest."""

    name: str
    family: str
    model: str
    length: int
    last: str

    @property
    def layers(self) -> int:
        """Return the layers of the model."""
        if self.family == "nv":
            return models.BERT_SIZES[self.model][0]
        if self.family == "vit":
            return models.VIT_SIZES[self.model][0]
        return models.language_model_depth(self.model)


def workload_of(name: str) -> Workload:
    """Return the workload of a name; raises PredictionError for one of no family, or of no known model."""
    for family, pattern in _FAMILIES.items():
        found = re.fullmatch(pattern, name)
        if found:
            parts = {"length": "512"} | found.groupdict()
            known = {"nv": models.BERT_SIZES, "vit": models.VIT_SIZES}.get(
                family, models.LANGUAGE_MODELS
            )
            if parts["model"] not in known:
                raise PredictionError(
                    "no such model", got=parts["model"], expected=", ".join(known)
                )
            return Workload(name, family, parts["model"], int(parts["length"]), parts["last"])
    raise PredictionError(
        "no workload has this name",
        got=name,
        expected="nv_..., hf_..., bare_..., half_... or vit_...",
    )


class StepWorks:
    """The work of one step of any workload at any batch size; remembers what it traced.

    (A `functools.cache` would be emptied: a trace leaves nothing behind in caches that it filled.)
    """

    def __init__(self) -> None:
        self._traced: dict[tuple[Workload, int, int], list[KernelCall]] = {}

    def work(self, workload: Workload, batch: int) -> PassWork:
        """Return the work of one step at a batch size, with all layers; raises PredictionError."""
        few, many = (self._calls(workload, batch, layers) for layers in _SHALLOW)
        counted = calls_at_depth(few, _SHALLOW[0], many, _SHALLOW[1], workload.layers)
        products = [(call, count) for call, count in counted if call.flops]
        others = [(call, count) for call, count in counted if not call.flops]
        return PassWork(
            documents=batch,
            batches=1,
            flops=sum(call.flops * count for call, count in products),
            product_bytes=sum(call.nbytes * count for call, count in products),
            other_bytes=sum(call.nbytes * count for call, count in others),
            compulsory_bytes=0,  # only a bound needs them
            kernels=sum(call.kernels * count for call, count in counted),
            by_kernel=kernel_work(counted),
        )

    def _calls(self, workload: Workload, batch: int, layers: int) -> list[KernelCall]:
        """Return the calls of one step of the model with so many layers."""
        if workload.family in ("hf", "steps_of_four"):
            return self._once(workload, batch, layers)
        few, many = (self._once(workload, anchor, layers) for anchor in _ANCHORS)
        return calls_at_batch(few, _ANCHORS[0], many, _ANCHORS[1], batch)

    def _once(self, workload: Workload, batch: int, layers: int) -> list[KernelCall]:
        key = (workload, batch, layers)
        if key not in self._traced:
            trainer = workload.family in ("hf", "steps_of_four")
            take = _trainer_step if trainer else _plain_step
            self._traced[key] = take(workload, batch, layers)
        return self._traced[key]


def _plain_step(workload: Workload, batch: int, layers: int) -> list[KernelCall]:
    model, length, last = workload.model, workload.length, workload.last
    if workload.family == "nv":
        factory = models.squad(model, layers, batch, length, half=last == "fp16")
    elif workload.family == "bare":
        factory = models.passes_alone(model, layers, batch, length, backward=last == "train")
    elif workload.family == "half":
        factory = models.half_model(model, layers, batch, length, last)
    else:
        factory = models.vit(model, layers, length, int(last), batch)
    counter = WorkCounter()
    alone = last == "inf"
    with mock.patch("transformers.masking_utils.find_packed_sequence_indices", _none_packed):
        # Batches of these benchmarks are full. transformers looks for packed examples in the positions' values,
        # which a trace does not have; a mask would then take the place of the kernels' own causal half.
        trace(factory, steps=1 if alone else 2, watch=counter.watch)
    return counter.calls_of(EVALUATION if alone else 2)


def _none_packed(_positions: Any) -> None:
    """Say that no batch is packed. (A mock would keep the positions that it is given, which have no data.)"""


def _trainer_step(workload: Workload, batch: int, layers: int) -> list[KernelCall]:
    kind, config = models.LANGUAGE_MODELS[workload.model]
    depth = "n_layers" if kind == "distilbert" else "num_hidden_layers"
    config = config | _OTHERS.get(workload.name.rpartition("_")[0], {}) | {depth: layers}
    training: dict[str, Any] = {}
    if workload.last.endswith("16"):
        training[workload.last[-4:]] = True
    if workload.family == "steps_of_four":
        batch //= 4
        training["gradient_accumulation_steps"] = 4
        training["gradient_checkpointing"] = workload.last.startswith("checkpointed")
    of = profile(
        workload={
            "model": f"architecture:{kind}",
            "tokenizer": "offline:minilm-l6",
            "weights": "random",
            "config": config,
        },
        grid=[
            {
                "max_length": [workload.length],
                "per_device_train_batch_size": [batch],
                "train_size": [1000],
            }
        ],
        training=training,
        attn_implementation="eager",
    )
    (cell,) = expand(of, resolve_model(of.workload), data_source(eval_size=16)).cells
    counter = WorkCounter()
    trace_trainer(cell, Target(), batches=Batches.of(cell), watch=counter.watch, evaluation=False)
    return counter.calls_of(STEPS)
