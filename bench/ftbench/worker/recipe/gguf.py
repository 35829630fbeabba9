"""Models in GGUF files, the format of llama.cpp: converted once into a directory that transformers reads fast.

The weights of such a file are often quantised. They are trained as the float32 numbers that they stand for.
"""

from __future__ import annotations

import copy
import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import ModelSource, Source
from ftbench.records.measurement import RunWarning

SUFFIX = ".gguf"
_WHERE = "workload.model"
# Increased whenever files are converted in another way.
_CONVERSION = 1


def is_gguf(source: Source) -> bool:
    """Return whether a source is a GGUF file."""
    return source.kind == "path" and source.location.lower().endswith(SUFFIX)


def converted(source: Source) -> Path:
    """Return the directory with the model, in float32, and the tokenizer of a GGUF file; it is made once.

    It is in the cache folder of the hub library, under the file's hash. Raises WorkloadError without the package
    gguf, and for a file that transformers cannot read.
    """
    digest = source.revision.removeprefix("sha256:")
    folder = Path(constants.HF_HOME) / "ftbench" / "models" / f"{digest[:24]}-{_CONVERSION}"
    if (folder / "config.json").is_file():
        return folder
    _require_package(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _convert(source, made)
        made.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _convert(source: Source, folder: Path) -> None:
    file = Path(source.location)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
    except Exception as error:  # as many kinds as there are ways in which a file can be damaged
        raise WorkloadError(
            f"the GGUF file cannot be read: {error}", where=_WHERE, got=source.reference
        ) from error
    # transformers marks what it read as quantised and does not save it, though its tensors are plain.
    config = copy.deepcopy(read.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)


def _require_package(source: Source) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise WorkloadError(
            "a GGUF file is read with the package gguf, which is not installed",
            where=_WHERE,
            got=source.reference,
            hint="python -m pip install gguf",
        )


def quantised_warnings(model: ModelSource) -> list[RunWarning]:
    """Return a note if weights are read that were quantised before they were written to the file."""
    if model.weights == "random" or not is_gguf(model.source):
        return []
    from gguf import GGUFReader, LlamaFileType

    field = GGUFReader(model.source.location).get_field("general.file_type")
    kind = None if field is None else LlamaFileType(int(field.contents()))
    if kind in (LlamaFileType.ALL_F32, LlamaFileType.MOSTLY_F16, LlamaFileType.MOSTLY_BF16):
        return []
    name = "an unknown type" if kind is None else kind.name.removeprefix("MOSTLY_")
    message = f"the weights in the GGUF file were quantised ({name}): training starts from their rounded values"
    return [RunWarning(name="note", message=message)]
