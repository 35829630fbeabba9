"""The host's time per kernel: a small encoder whose kernels take next to no time themselves."""

from __future__ import annotations

import statistics
import time

import torch
import transformers

from ftbench.worker.calibrate.memory_kernels import optimizer_of
from ftbench.worker.calibrate.timing import OperatorCounter

_LAYERS = 4
_ROUNDS = 9
# Parameters of one element: as many as a model of 12 layers has.
_PARAMETERS = 200


def seconds_of_passes(device: torch.device) -> tuple[float, int]:
    """Return the median seconds of forward and backward passes of a small encoder, and the kernels they start."""
    config = transformers.BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        vocab_size=64,
    )
    model = transformers.BertForSequenceClassification(config).train()
    torch.nn.Module.to(model, device)
    inputs = {
        "input_ids": torch.ones(1, 8, dtype=torch.long, device=device),
        "attention_mask": torch.ones(1, 8, dtype=torch.long, device=device),
        "labels": torch.zeros(1, dtype=torch.long, device=device),
    }

    def passes() -> None:
        model(**inputs).loss.backward()

    def timed() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        passes()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()
    seconds = statistics.median(timed() for _ in range(_ROUNDS))
    with OperatorCounter(device) as counter:
        passes()
    return seconds, counter.kernels


def seconds_of_update(device: torch.device) -> tuple[float, int]:
    """Return the seconds of an update of many small parameters by its host, and the kernels it starts."""
    optimizer = optimizer_of([1] * _PARAMETERS, device, fused=True)
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / _ROUNDS
    with OperatorCounter(device) as counter:
        optimizer.step()
    return seconds, counter.kernels
