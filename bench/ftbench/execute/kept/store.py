"""Store: kept answers in a folder of bounded size, one file each, whole or not there. A damaged one is removed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftbench.base.errors import RunDirectoryError
from ftbench.base.files import write_atomically
from ftbench.base.units import MIB

MOST_BYTES = 256 * MIB
_SUFFIX = ".answer"
_DIGEST_BYTES = hashlib.sha256().digest_size
_MOST_ENTRY_BYTES = 64 * MIB


@dataclasses.dataclass(frozen=True)
class Usage:
    """The number of kept answers, and their size on disk."""

    entries: int
    nbytes: int


class Store:
    """Kept answers by their key. Several processes may read and write at a time; nothing here raises OSError.

    A file is the SHA-256 of the rest, and the rest: compressed JSON data. A disk that cannot be written to, or a
    file that is damaged, is the same as an answer that is not kept.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """Make a store; the folder is made with the first answer. Above `most_bytes`, the longest unused go."""
        self.folder = folder
        self.most_bytes = most_bytes

    def read(self, key: str) -> Any:
        """Return the JSON data that were kept under a key, which counts as a use; None if there are none."""
        file = self._file(key)
        try:
            content = _read_regular(file)
            digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(packed).digest() != digest:
                raise ValueError("the checksum differs")
            data = json.loads(zlib.decompress(packed))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, zlib.error, RecursionError):
            self.remove(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return data

    def write(self, key: str, data: Any) -> None:
        """Keep JSON data under a key; makes room by removing what was not used for longest."""
        packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), level=1)
        if len(packed) > min(self.most_bytes, _MOST_ENTRY_BYTES) - _DIGEST_BYTES:
            return
        with contextlib.suppress(OSError, RunDirectoryError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._file(key), hashlib.sha256(packed).digest() + packed)
            self._make_room()

    def remove(self, key: str) -> None:
        """Remove what is kept under a key, if anything is."""
        with contextlib.suppress(OSError):
            self._file(key).unlink()

    def usage(self) -> Usage:
        """Return how many answers are kept, and their size."""
        found = [(file, size) for _, size, file in self._files()]
        return Usage(sum(file.suffix == _SUFFIX for file, _ in found), sum(n for _, n in found))

    def clear(self) -> Usage:
        """Remove all answers; return what was removed."""
        before = self.usage()
        for _, _, file in self._files():
            with contextlib.suppress(OSError):
                file.unlink()
        return before

    def _make_room(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= self.most_bytes:
                return
            with contextlib.suppress(OSError):
                file.unlink()
            total -= size

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield when each file was last used, its size and its path; also of those that a writer left half done."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if _SUFFIX in entry.name and stat.S_ISREG(status.st_mode):
                        yield status.st_mtime_ns, status.st_size, Path(entry.path)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def _read_regular(file: Path) -> bytes:
    """Return the content of a regular file of a sensible size; raises OSError or ValueError for others."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_ENTRY_BYTES:
            raise ValueError("not a file of ours")
        return stream.read()
