"""Data sets that the library datasets has saved (`save_to_disk`): Arrow files that `state.json` names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ftbench.base.errors import WorkloadError
from ftbench.worker.data.arrow_files import names_in
from ftbench.worker.data.content import WHERE
from ftbench.worker.data.splits import FileSplit


def saved_splits(path: Path, files: Sequence[Path], only: str) -> dict[str, FileSplit]:
    """Return the splits of a data set that `save_to_disk` wrote."""
    if not (path / "dataset_dict.json").is_file():
        return {only: _saved_split(path, path, files)}
    names = _described(path / "dataset_dict.json").get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise WorkloadError(
            "names no splits", where=str(path / "dataset_dict.json"), got=repr(names)
        )
    return {name: _saved_split(path, path / name, files) for name in names}


def _saved_split(root: Path, folder: Path, files: Sequence[Path]) -> FileSplit:
    """Return one split of a saved data set, whose Arrow files `state.json` names."""
    state = _described(folder / "state.json")
    entries = state.get("_data_files")
    names = [e.get("filename") for e in entries or [] if isinstance(e, dict)]
    if not names or not all(isinstance(name, str) for name in names):
        raise WorkloadError(
            "names no data files", where=str(folder / "state.json"), got=repr(entries)
        )
    if state.get("_indices_data_files"):
        raise WorkloadError(
            "an old form of a saved data set, with rows chosen by a second file",
            where=str(folder / "state.json"),
            hint="load it with the library datasets, and save it again",
        )
    real = root.resolve() / folder.relative_to(root)
    chosen = within([str(real / str(name)) for name in names], root, files)
    info = _described(folder / "dataset_info.json")
    return FileSplit(chosen, names_in(info.get("features")))


def _described(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkloadError(
            f"a saved data set lacks its description: {error}", where=WHERE, got=str(file)
        ) from error
    return found if isinstance(found, dict) else {}


def within(names: Iterable[str], root: Path, files: Sequence[Path]) -> list[Path]:
    """Return files by their names; raises WorkloadError for one that the revision does not hash."""
    real = root.resolve()  # the library datasets resolves links above the directory
    # Without following links: a link to a file is hashed under its own name.
    hashed = {os.path.normpath(real / file.relative_to(root)): file for file in files}
    chosen = []
    for name in names:
        file = hashed.get(os.path.normpath(name))
        if file is None:
            raise WorkloadError(
                "a data set may not read files outside of its directory",
                where=WHERE,
                got=name,
                expected=f"files in {root}, none of them behind a link to a directory",
                hint="the revision of a data set is the hash of its own files",
            )
        chosen.append(file)
    return chosen
