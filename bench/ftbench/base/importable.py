"""Importable names: what a folder has for `import`, and which folders belong to installed libraries."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import site
import sysconfig

_MODULES = (".py", ".pyc", ".so")
_SHARED_LIBRARY = re.compile(r"\.so(\.\d+)*$")


@functools.cache
def library_folders() -> tuple[str, ...]:
    """Return the folders of Python's own library and of installed packages, each with a slash at its end."""
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    real = [os.path.realpath(folder) for folder in found]
    return tuple(f"{folder}{os.sep}" for folder in dict.fromkeys([*found, *real]))


def in_library(path: str) -> bool:
    """Return whether an absolute path leads into Python's own library or an installed package."""
    return path.startswith(library_folders())


def is_shared_library(path: str) -> bool:
    """Return whether a file has the name of a shared library, also with its version: `libx.so`, `libx.so.1.2`."""
    return _SHARED_LIBRARY.search(path) is not None


def importable_names(folder: str) -> str:
    """Return a digest of the names in a folder that can be imported; of no names if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name for entry in entries if entry.name.endswith(_MODULES) or _package(entry)
            )
    except OSError:
        names = []
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def _package(entry: os.DirEntry[str]) -> bool:
    return entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir()
