"""Rows: what a row of a table of many sources asks for, as steps that can be traced, or the reason why it cannot.

A row is looked at as a reader would: was it compiled, is what ran stated, and is that code written here?
Two programs are: torchtitan's pretraining (`titan.py`), and thunder's benchmark of litgpt's models (`litgpt.py`),
both under FSDP2.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ftbench.base.errors import ProfileError
from ftbench.plan.gpus import Gpu, custom_gpu, find_gpu
from tests.validation.published.titan import Checkpointing

Row = Mapping[str, str]
Program = Literal["torchtitan", "litgpt"]


class Sizes(NamedTuple):
    """The shape of a Llama."""

    layers: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    vocabulary: int


class Run(NamedTuple):
    """What decides the memory of a published step."""

    program: Program
    model: str
    sizes: Sizes
    ranks: int
    batch: int
    length: int
    checkpointing: Checkpointing
    reshard: bool
    card: str
    torch: tuple[int, int]


# The columns that decide memory; the note on a row (`not_stated`) may say them, too.
_STATED = ("method", "param_dtype", "optimizer", "micro_batch", "seq_len")
_NUMBERS = ("micro_batch", "seq_len")
# Columns that say by these words that something is not done.
_NONE = ("", "no", "none", "no (eager)", "false")
# From the models' config.json on the Hugging Face hub.
_LLAMA_3 = Sizes(32, 4096, 32, 8, 14336, 128256)
_LLAMA_3_70B = Sizes(80, 8192, 64, 8, 28672, 128256)
_LLAMA_2 = Sizes(32, 4096, 32, 32, 11008, 32000)
_LLAMA_2_13B = Sizes(40, 5120, 40, 40, 13824, 32000)
_MISTRAL = Sizes(32, 4096, 32, 8, 14336, 32000)
_MODELS = {
    "llama 3 8b": _LLAMA_3,
    "llama 3.1 8b": _LLAMA_3,
    "llama 3 70b": _LLAMA_3_70B,
    "llama 3.1 70b": _LLAMA_3_70B,
    "llama 2 7b": _LLAMA_2,
    "llama 2 13b": _LLAMA_2_13B,
    "mistral 7b v0.1": _MISTRAL,
}
# How each program keeps weights, computes and reduces: in the columns param_dtype, compute_dtype and reduce_dtype.
_TYPES = {"torchtitan": ("fp32", "bf16", "fp32"), "litgpt": ("bf16", "bf16", "bf16")}
_FULLY_SHARDED = re.compile(r"FSDP2( 1D| zero2| zero3)?")
_CHECKPOINTING: dict[str, Checkpointing] = {
    "full": "full",
    "selective (op)": "operators",
    "selective, every 2nd layer": "every second block",
}
# The release that a nightly build of torch became: builds before a month (the branch of a release is cut some six
# weeks before it, and the months of releases are on https://github.com/pytorch/pytorch/releases).
_NIGHTLIES = {
    (2024, 6): (2, 4),
    (2024, 9): (2, 5),
    (2024, 12): (2, 6),
    (2025, 3): (2, 7),
    (2025, 6): (2, 8),
}
_USUAL_TORCH = (2, 6)


def reason_against(row: Row) -> str | None:
    """Return why a row is not predicted; None if it is."""
    return _unclear(row) or _other_program(row) or _other_settings(row) or _other_card(row["gpu"])


def run_of(row: Row) -> Run:
    """Return the run of a row that there is no reason against."""
    program = _program(row)
    sizes = _sizes(row["model"])
    assert program is not None
    assert sizes is not None
    return Run(
        program,
        row["model"],
        sizes,
        _number(row, "n_gpus"),
        _number(row, "micro_batch"),
        _number(row, "seq_len"),
        _CHECKPOINTING.get(row["activation_ckpt"].lower(), "none"),
        "false" not in row["resharding"].lower() and "zero2" not in row["sharding"],
        row["gpu"],
        torch_of(row["torch_version"]),
    )


def card_of_row(text: str) -> Gpu:
    """Return the card of a row; one whose memory differs from the catalogue's has the same chip and that memory.

    Raises ProfileError.
    """
    name = text.split()[0].lower()
    size = re.search(r"(\d+) ?GB", text)
    try:
        gpu = find_gpu(name)
    except ProfileError:
        if size is None:
            raise
        return find_gpu(f"{name}-{size[1]}gb")
    if size is None or find_size(gpu) == int(size[1]):
        return gpu
    other = custom_gpu(f"{size[1]}GB", gpu.compute_capability)
    memory = {name: getattr(other, name) for name in ("memory_low_bytes", "memory_bytes")}
    return gpu.model_copy(update=memory)


def find_size(gpu: Gpu) -> int:
    """Return the GB that are printed on a card's box: CUDA reports some percent less than as many GiB."""
    return -(-gpu.memory_low_bytes // 2**30)


def torch_of(text: str) -> tuple[int, int]:
    """Return the release of torch that a row names, or that its nightly build became."""
    if version := re.search(r"\b(\d)\.(\d+)", text):
        return int(version[1]), int(version[2])
    if month := re.search(r"(\d{4})-(\d\d)", text):
        made = int(month[1]), int(month[2])
        return next((found for end, found in _NIGHTLIES.items() if made < end), _USUAL_TORCH)
    return _USUAL_TORCH


def _unclear(row: Row) -> str | None:
    """Return what a row does not say."""
    if re.match(r"\d+", row["n_gpus"]) is None:
        return "the number of cards is not stated"
    if row["compile"].lower() not in _NONE:
        return f"{row['compile']}: a compiled graph allocates otherwise than the model's operators"
    missing = [name for name in _STATED if not _value(row, name)]
    if missing:
        return f"not stated: {', '.join(missing)}"
    for name in _NUMBERS:
        if re.fullmatch(r"\d+(\.0)?( \(default\))?", _value(row, name)) is None:
            return (
                f"{name} is no number ({_value(row, name)}): it depends on data that is not known"
            )
    return None


def _other_program(row: Row) -> str | None:
    """Return why what ran is not written here."""
    if "deepspeed" in f"{row['framework']} {row['sharding']}".lower():
        return "DeepSpeed: its engine cannot be traced"
    program = _program(row)
    if program is None:
        return f"{row['framework'] or 'an unnamed framework'} has model code of its own, which is not traced here"
    if _sizes(row["model"]) is None:
        return f"no shape of {row['model']} is known for {program}"
    if _FULLY_SHARDED.fullmatch(row["sharding"]) is None:
        return f"{row['sharding'] or 'no sharding'} of {program} is not traced here"
    return None


def _other_settings(row: Row) -> str | None:
    """Return what a row's program was run with that it is not written for."""
    program = _program(row)
    assert program is not None
    stated = [row[name].split() for name in ("param_dtype", "compute_dtype", "reduce_dtype")]
    if any(words and words[0] != own for words, own in zip(stated, _TYPES[program], strict=True)):
        types = ", ".join(" ".join(words) for words in stated)
        return f"types of numbers ({types}) that {program} is not written for here"
    if row["optimizer"] != "AdamW fused":
        return f"the optimizer {row['optimizer']} of {program} is not traced here"
    checkpointing = row["activation_ckpt"].lower()
    if checkpointing not in _NONE and (program == "litgpt" or checkpointing not in _CHECKPOINTING):
        return (
            f"checkpointing {row['activation_ckpt']}: which operators are recomputed is not stated"
        )
    return None


def _other_card(text: str) -> str | None:
    try:
        card_of_row(text)
    except (ProfileError, IndexError):
        return f"the card {text!r} is not known"
    return None


def _program(row: Row) -> Program | None:
    framework = row["framework"].lower()
    if framework.startswith("torchtitan"):
        return "torchtitan"
    return "litgpt" if "benchmark_litgpt" in framework else None


def _sizes(model: str) -> Sizes | None:
    """Return the shape of a model by its name: `Llama-2-7b-hf` is `llama 2 7b`."""
    name = model.lower().removesuffix("-hf").replace("-", " ")
    return _MODELS.get(name)


def _value(row: Row, name: str) -> str:
    """Return a column, or what the note on the row says of it: `batch 1 by the sibling script`."""
    if row[name] or name != "micro_batch":
        return row[name]
    said = re.search(r"\bbatch (\d+) by\b", row["not_stated"])
    return said[1] if said else ""


def _number(row: Row, name: str) -> int:
    found = re.match(r"\d+", _value(row, name))
    assert found is not None
    return int(found[0])


def text_of(row: Mapping[Any, Any]) -> Row:
    """Return a row of a table as text; a column that the table does not have is empty."""
    return defaultdict(str, {str(name): str(value).strip() for name, value in row.items()})
