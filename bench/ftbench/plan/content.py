"""The content of files: which belong to a source, their hashes, and the revision made of these."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ftbench.base.errors import WorkloadError, nearest_name

# A file that changed later than this may have another content than its hash says.
FIRST_HASHED_AFTER_NS = time.time_ns()
_KINDS = {
    stat.S_IFIFO: "a FIFO (a named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def hashed_files(path: Path, where: str) -> tuple[Path, list[Path]]:
    """Return the files of a source, and the folder that their names are relative to; no files without a source.

    The path is a file, a directory or a glob of files. The content of a link to a file is the file's own. Neither a
    directory behind a link belongs to the source, nor files that the library datasets caches beside a saved data
    set. Raises WorkloadError for a FIFO, a socket or a device, which is never opened.
    """
    if path.is_dir():
        found = sorted(path.rglob("*"))
        _refuse_special((file for file in found if not _hidden(file.relative_to(path))), where)
        return path, [f for f in found if f.is_file() and not f.match("cache-*.arrow")]
    if not os.path.lexists(path) and any(character in path.name for character in "*?["):
        found = sorted(path.parent.glob(path.name))
    else:
        found = [path] if os.path.lexists(path) else []
    _refuse_special(found, where)
    return path.parent, [file for file in found if file.is_file()]


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts[:-1])


def _refuse_special(files: Iterable[Path], where: str) -> None:
    """Raise WorkloadError for a file that cannot be read twice, or not at all."""
    for file in files:
        try:
            kind = stat.S_IFMT(file.stat().st_mode)
        except FileNotFoundError as error:
            raise WorkloadError(
                "a link to a file that does not exist",
                where=where,
                got=f"{file} -> {file.readlink()}",
            ) from error
        except OSError as error:
            raise WorkloadError(
                f"cannot be read: {error.strerror or error}", where=where, got=str(file)
            ) from error
        if kind in _KINDS:
            raise WorkloadError(
                "not a file with content that stays",
                where=where,
                got=f"{file}, {_KINDS[kind]}",
                expected="files and directories",
                hint="write its content into a file first",
            )


def hash_files(root: Path, files: Sequence[Path]) -> tuple[dict[str, str], str]:
    """Return the SHA-256 of each file by its name, and the revision of all: the SHA-256 of names and hashes."""
    digests = {file.relative_to(root).as_posix(): _hash_file(file) for file in files}
    lines = "".join(f"{name}\0{digest}\n" for name, digest in digests.items())
    # A name may hold bytes that are not UTF-8.
    revision = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
    return digests, f"sha256:{revision}"


def _hash_file(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WorkloadError(
            f"cannot be read: {error.strerror or error}", where=str(file)
        ) from error


def nearest_path(path: Path) -> str | None:
    """Return the existing path closest to a mistyped one; None if there is none.

    The first part that does not exist is compared with its neighbours.
    """
    missing = path
    try:
        while missing.parent != missing and not missing.parent.is_dir():
            missing = missing.parent
        neighbours = [
            neighbour.name
            for neighbour in missing.parent.iterdir()
            if missing == path or neighbour.is_dir()
        ]
    except OSError:
        return None
    name = nearest_name(missing.name, neighbours)
    return None if name is None else str(missing.parent / name)
