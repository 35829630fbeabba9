"""The files of a model directory: what keeps it from being loaded, said before a library tries.

A library's own message about a pointer of Git LFS or a download that was cut off names neither file nor cause.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftbench.base.errors import WorkloadError
from ftbench.base.units import format_bytes
from ftbench.plan.sources import ModelSource

_LFS = b"version https://git-lfs.github.com/spec/"
_WHERE = "workload.model"
# A safetensors file begins with the header's length in eight bytes; its reader refuses a longer header.
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


def require_model_files(model: ModelSource) -> None:
    """Raise WorkloadError if a model directory is of another kind, or if its files are missing or broken."""
    if model.source.kind != "path":
        return
    folder = Path(model.source.location)
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        if file.is_file() and _begins(file, len(_LFS)) == _LFS:
            raise WorkloadError(
                "a pointer of Git LFS, not the file itself",
                where=str(file),
                hint="fetch the content: git lfs pull",
            )
    if not (folder / "config.json").is_file():
        _refuse_other_kind(folder, model.source.reference)
    if model.weights == "pretrained":
        _require_weights(folder, model)


def _begins(file: Path, count: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _refuse_other_kind(folder: Path, reference: str) -> None:
    """Raise WorkloadError that says what a directory without config.json holds."""
    adapter, modules = folder / "adapter_config.json", folder / "modules.json"
    if adapter.is_file():
        base = _json(adapter).get("base_model_name_or_path")
        raise WorkloadError(
            "an adapter of peft, not a model: it has no weights but those it adds to another model",
            where=_WHERE,
            got=reference,
            hint=f"name its base model, {base}; or merge it first: `merge_and_unload()`, then `save_pretrained()`",
        )
    if modules.is_file():
        part = next((name for name in _transformers_of(modules) if (folder / name).is_dir()), None)
        raise WorkloadError(
            "a directory of sentence-transformers: its parts are models of transformers, the whole is not",
            where=_WHERE,
            got=reference,
            hint=f"name the part: {Path(reference) / part}" if part else "name one of its folders",
        )
    raise WorkloadError(
        "a directory without config.json: not a model as `save_pretrained()` writes it",
        where=_WHERE,
        got=reference,
        expected="config.json, weights and tokenizer files",
    )


def _transformers_of(modules: Path) -> Iterator[str]:
    """Yield the folders of a sentence-transformers model that are models of transformers."""
    entries = _json(modules)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and str(entry.get("type", "")).endswith(".Transformer"):
            yield str(entry.get("path", ""))


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkloadError(f"cannot be read: {error}", where=str(file)) from error


def _require_weights(folder: Path, model: ModelSource) -> None:
    """Raise WorkloadError unless there are weights of an accepted format, and all of their files are whole."""
    index = folder / f"{SAFETENSORS}.index.json"
    files: Sequence[Path] = [folder / SAFETENSORS]
    if index.is_file() and not files[0].is_file():
        files = [folder / name for name in _shards(index)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise WorkloadError(
                f"{len(missing)} of {len(files)} files of the weights are missing",
                where=str(index),
                got=", ".join(missing[:3]),
            )
    if files and files[0].is_file():
        for file in files:
            _require_whole(file)
        return
    pickled = [folder / PICKLED, folder / f"{PICKLED}.index.json"]
    if not any(file.is_file() for file in pickled):
        raise WorkloadError(
            "the directory has no weights",
            where=_WHERE,
            got=model.source.reference,
            expected=f"{SAFETENSORS} or {PICKLED}",
            hint='for cost alone: weights = "random" in [workload]',
        )
    if model.weights_format != "any":
        raise WorkloadError(
            "the weights are pickled, and a pickle can run code when it is read",
            where=_WHERE,
            got=f"{model.source.reference}: {PICKLED} and no {SAFETENSORS}",
            hint='if you trust them: weights_format = "any" in [workload] (torch then reads weights only)',
        )


def _shards(index: Path) -> list[str]:
    """Return the names of the files in an index; raises WorkloadError for one outside of its directory."""
    data = _json(index)
    shards = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise WorkloadError("an index that names no files of weights", where=str(index))
    names = sorted(set(map(str, shards.values())))
    if outside := [name for name in names if Path(name).name != name or name == ".."]:
        raise WorkloadError(
            "the index names a file outside of the model's directory",
            where=str(index),
            got=outside[0],
            expected="names of files beside it",
        )
    return names


def _require_whole(file: Path) -> None:
    """Raise WorkloadError unless a safetensors file has the header and the bytes that it says it has."""
    size = file.stat().st_size
    begin = _begins(file, _LENGTH.size)
    length = _LENGTH.unpack(begin)[0] if len(begin) == _LENGTH.size else _LONGEST_HEADER + 1
    if length > _LONGEST_HEADER:
        raise WorkloadError("not a safetensors file", where=str(file), got=f"{begin[:8]!r}...")
    try:
        header = json.loads(_begins(file, _LENGTH.size + length)[_LENGTH.size :])
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
        whole = _LENGTH.size + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        what = "cut off within its header" if size < _LENGTH.size + length else "a damaged header"
        raise WorkloadError(what, where=str(file), got=format_bytes(size)) from error
    if size < whole:
        raise WorkloadError(
            "cut off: the file ends before its weights do",
            where=str(file),
            got=f"{size:,} bytes",
            expected=f"{whole:,} bytes",
            hint="download or copy it again",
        )
