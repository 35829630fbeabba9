"""Rows: what a row of a published table asks for, as steps that can be traced, or the reason why it cannot.

Sources of the settings: transformers' documentation of attention kernels and pull request 28802 (weights in half
precision; forward, the sum of all logits, backward), the course "LLMs from scratch" (a GPT written out in torch)
and optimum-benchmark (a Trainer's step). Models are named by their shape: `models.json` has the configs, from the
models' pages on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ftbench.base.errors import FtbenchError
from ftbench.plan.gpus import Gpu, custom_gpu, find_gpu

_MODELS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("models.json").read_text())
TASKS = ("causal-lm", "masked-lm", "text-classification")
COURSE = "gpt-124m"
# What the tables call the parts of a step, and an optimizer.
Work = Literal["sum of logits", "training"]
_WORK: dict[str, Work] = {
    "forward+backward": "sum of logits",
    "training loop": "training",
    "trainer": "training",
}
_DTYPES = {name: name for name in ("float32", "float16", "bfloat16")} | {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_OPTIMIZERS = ("none", "AdamW", "adamw_torch", "SGD", "sgd")
# The cards of tables that name none: a GeForce RTX 3080 Ti laptop (transformers' pages), the A100 of 80 GB, and the
# half of an MI250 that is one device, on which HIP's build of the same allocator runs.
_CARDS = {"a100": "a100-80gb"}
_AMD = {"mi250": "64GB", "mi210": "64GB", "mi300x": "192GB"}
# Rows that say nothing of their torch: the release of most others. It decides workspaces of a few megabytes.
_USUAL_TORCH = (2, 2)


class Run(NamedTuple):
    """What decides the memory of a published step."""

    model: str
    task: str
    work: Work
    dtype: str
    batch: int
    length: int
    attention: str
    optimizer: str
    fused: bool
    mask: Literal["", "buffer", "on the fly"]
    contiguous: bool
    card: str
    torch: tuple[int, int]


def reason_against(row: Mapping[str, Any]) -> str | None:
    """Return why a row is not predicted; None if it is."""
    if _task(row) is None:
        return f"the task of {row['model']} is none of {', '.join(TASKS)}"
    if config_of(str(row["model"])) is None and not _of_course(row):
        return f"no config is known for the model {row['model']}"
    if str(row["task"]).strip().lower() not in _WORK:
        return f"the steps of {row['task']!r} are not known"
    if _dtype(row) is None:
        return f"the type {row['dtype']!r} is not stated as one of weights"
    if str(row["attention"]) not in ("eager", "sdpa", "default"):
        return f"the attention {row['attention']} is not traced here"
    if str(row["optimizer"]) not in _OPTIMIZERS:
        return f"the optimizer {row['optimizer']} is not traced here"
    if not all(re.fullmatch(r"\d+(\.0)?", str(row[name])) for name in ("batch", "length")):
        return "batch or length is not stated as one number"
    try:
        card_of_row(str(row["card"]))
    except FtbenchError:
        return f"the card {row['card']!r} is not in the catalogue"
    return None


def run_of(row: Mapping[str, Any]) -> Run:
    """Return the run of a row that `reason_against` has nothing against."""
    task, dtype = _task(row), _dtype(row)
    assert task is not None
    assert dtype is not None
    note = str(row["note"])
    return Run(
        model=COURSE if _of_course(row) else _name(str(row["model"])),
        task=task,
        work=_WORK[str(row["task"]).strip().lower()],
        dtype=dtype,
        batch=int(float(row["batch"])),
        length=int(float(row["length"])),
        attention=str(row["attention"]),
        optimizer=str(row["optimizer"]),
        fused="fused AdamW" in note,
        mask=("on the fly" if "on the fly" in note else "buffer") if _of_course(row) else "",
        contiguous="28802" in str(row["source"]),
        card=str(row["card"]),
        torch=_torch(str(row["torch"])),
    )


def config_of(model: str) -> dict[str, Any] | None:
    """Return the fields of a model's config by its name; None if there is none."""
    return _MODELS.get(_name(model))


def card_of_row(text: str) -> Gpu:
    """Return the card of a row; one that only has a size is of the generation of the table's card."""
    name = text.strip().lower()
    if size := re.fullmatch(r"(\d+) ?gi?b card", name):
        return custom_gpu(f"{size[1]}GB", (8, 6))
    return custom_gpu(_AMD[name]) if name in _AMD else find_gpu(_CARDS.get(name, name))


def _of_course(row: Mapping[str, Any]) -> bool:
    return "own attention" in str(row["model"]) and _name(str(row["model"])) == COURSE


def _name(model: str) -> str:
    """Return the first word of a model's description, without the owner and in lower case: `gpt2 causal-lm`."""
    return model.split()[0].rpartition("/")[2].lower() if model.split() else ""


def _task(row: Mapping[str, Any]) -> str | None:
    if _of_course(row):
        return "causal-lm"
    return next((task for task in TASKS if str(row["model"]).endswith(task)), None)


def _dtype(row: Mapping[str, Any]) -> str | None:
    return _DTYPES.get(str(row["dtype"]).removesuffix(" weights"))


def _torch(text: str) -> tuple[int, int]:
    """Return major and minor; the release before, if the row says `before 2.2`."""
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        return _USUAL_TORCH
    major, minor = int(found[1]), int(found[2])
    return (major, minor - 1) if text.startswith("before") else (major, minor)
