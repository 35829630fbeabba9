"""The kernels of published fine-tunes, by shape: `python -m tests.published_kernels` traces them again.

published_kernels.json has the steps and evaluations of the works in tests/published_fine_tunes.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftbench.records.kernel_work import KernelWork

_FILE = Path(__file__).with_suffix(".json")
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_FOUR = {"gradient_accumulation_steps": 4}
_CHECKPOINTED = _FOUR | {"gradient_checkpointing": True}
# Type, batch, length, config, training settings.
CELLS: Mapping[str, tuple[str, int, int, dict[str, Any], dict[str, Any]]] = {
    "BERT_BASE_128": ("bert", 32, 128, {"vocab_size": 28996}, {}),
    "BERT_BASE_128_FP16": ("bert", 32, 128, {"vocab_size": 28996}, {"fp16": True}),
    "BERT_LARGE_512": ("bert", 4, 512, _LARGE, {}),
    "BERT_LARGE_ACCUMULATED": ("bert", 1, 512, _LARGE, _FOUR),
    "BERT_LARGE_CHECKPOINTED": ("bert", 1, 512, _LARGE, _CHECKPOINTED),
    "BERT_LARGE_FP16": ("bert", 4, 512, _LARGE, {"fp16": True}),
    "BERT_LARGE_CHECKPOINTED_FP16": ("bert", 1, 512, _LARGE, _CHECKPOINTED | {"fp16": True}),
    "BERT_BASE_512": ("bert", 16, 512, {}, {}),
    "DISTILBERT_512": ("distilbert", 12, 512, {}, {}),
    "DISTILBERT_512_FP16": ("distilbert", 12, 512, {}, {"fp16": True}),
}


def kernels_of(name: str) -> tuple[KernelWork, KernelWork]:
    """Return the kernels of a step and of an evaluation."""
    step, evaluation = json.loads(_FILE.read_text(encoding="utf-8"))[name]
    return KernelWork.model_validate(step), KernelWork.model_validate(evaluation)


def count(name: str) -> Any:
    """Return the `CellWork` of a published cell, from a trace."""
    from ftbench.plan.grid import expand
    from ftbench.plan.sources import resolve_model
    from ftbench.prediction.trace.trace_trainer import Batches
    from ftbench.prediction.trace.tracer import Target
    from ftbench.prediction.trace.work import count_work
    from tests.factories import data_source, profile

    model, batch, length, config, training = CELLS[name]
    workload = {
        "model": f"architecture:{model}",
        "tokenizer": "offline:minilm-l6",
        "weights": "random",
        "config": config,
    }
    grid = {
        "max_length": [length],
        "per_device_train_batch_size": [batch],
        "train_size": [1000],
    }
    of = profile(workload=workload, grid=[grid], training=training, attn_implementation="eager")
    (cell,) = expand(of, resolve_model(of.workload), data_source(eval_size=16)).cells
    return count_work(cell, Target(), Batches.of(cell))


def main() -> None:
    """Write the kernels of all cells."""
    found = {}
    for name in CELLS:
        work = count(name)
        found[name] = [
            work.step.by_kernel.model_dump(mode="json", exclude_defaults=True),
            work.evaluation.by_kernel.model_dump(mode="json", exclude_defaults=True),
        ]
    lines = ",\n".join(
        f'"{name}": {json.dumps(of, separators=(",", ":"))}' for name, of in found.items()
    )
    _FILE.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
