"""Files: the fingerprints of those that a worker read, made after its answer and compared before it is used again.

The files of installed libraries are compared by size and time of change, as Python compares a source with its
bytecode; all others by content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import ftbench
from ftbench.base.files import stamp_of
from ftbench.base.importable import importable_names, in_library, is_shared_library
from ftbench.records.recorded import FilesRead

Fingerprints = dict[str, str]
_FOLDER = os.sep  # at the end of the name of a folder
_ABSENT = "absent"
_OURS = f"{Path(ftbench.__file__).parent}{os.sep}"  # part of every key


def fingerprints_of(read: FilesRead, known: Collection[str]) -> Fingerprints | None:
    """Return the fingerprints of what a worker read; None if any of it was changed meanwhile.

    Left out are files that are `known`: the request has the revision of their content.
    """
    found: Fingerprints = {}
    for path, stamp in read.files.items():
        if path in known or path.startswith(_OURS):
            continue
        found[path] = _of_file(path)
        if stamp_of(path) != stamp:  # of the file that the worker opened
            return None
    for folder, names in read.folders.items():
        if importable_names(folder) != names:
            return None
        found[f"{folder}{_FOLDER}"] = names
    return found


def unchanged(fingerprints: Mapping[str, str]) -> bool:
    """Return whether all files and folders are as they were."""
    return all(_of(path) == fingerprint for path, fingerprint in fingerprints.items())


def _of(path: str) -> str:
    return importable_names(path) if path.endswith(_FOLDER) else _of_file(path)


def _of_file(path: str) -> str:
    stamp = stamp_of(path)
    if stamp is None:
        return _ABSENT
    if in_library(path) or is_shared_library(path):
        return f"{stamp[0]} {stamp[1]}"
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return _ABSENT
