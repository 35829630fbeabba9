"""Plain data from a file that nobody vouches for: a pickle or JSON text, perhaps compressed by gzip.

A pickle can name any function and have it called. A snapshot of torch consists of lists, tuples, dictionaries,
texts and numbers, which need no name at all, so the first name ends the reading. What a file makes of its bytes is
bounded, too: a few bytes of pickle can ask for all of a machine's memory.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ftbench.base.errors import SnapshotError
from ftbench.base.units import GIB, format_bytes

MOST_BYTES = 2 * GIB
# Memory that the objects of a file may take: a byte of a pickle makes at most one empty set, of 216 bytes; those of
# a snapshot take about ten times the file.
_GROWTH = 64
_AT_LEAST = GIB
_GZIP = b"\x1f\x8b"
_PICKLE = b"\x80"  # the opcode PROTO, which begins every pickle since protocol 2
_HINT = "record fewer events: torch.cuda.memory._record_memory_history(max_entries=100_000, stacks='python')"


def read_plain(file: Path, *, most_bytes: int = MOST_BYTES) -> object:
    """Return the data in a pickle or a JSON file; raises SnapshotError.

    It consists of None, booleans, numbers, texts, bytes, lists, tuples, sets and dictionaries. A file of more than
    `most_bytes`, unpacked, is refused.
    """
    content = _content(file, most_bytes)
    with _memory_bounded(len(content)):
        try:
            return _unpickled(content) if content[:1] == _PICKLE else json.loads(content)
        except _NameFound as error:
            raise SnapshotError(
                "refused: this pickle names code to be run, and a snapshot of memory has none",
                where=str(file),
                got=str(error),
            ) from None
        except MemoryError:
            what = "refused: its data need more memory than a file of this size should"
            raise SnapshotError(what, where=str(file), got=format_bytes(len(content))) from None
        except Exception as error:  # a pickle that is damaged or made up may raise anything
            raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> SnapshotError:
    return SnapshotError(
        "neither a pickle nor JSON text that can be read; it may be cut off",
        where=str(file),
        got=f"{type(error).__name__}: {error}"[:200],
        expected="a file of torch.cuda.memory._dump_snapshot, or _snapshot() as JSON",
    )


def _content(file: Path, most_bytes: int) -> bytes:
    try:
        with file.open("rb") as stream:
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            if not packed:
                content = stream.read(most_bytes + 1)
            else:
                with gzip.open(stream) as unpacked:
                    content = unpacked.read(most_bytes + 1)
    except OSError as error:
        got = error.strerror or str(error)
        raise SnapshotError("cannot be read", where=str(file), got=got) from error
    except (EOFError, zlib.error) as error:
        raise _unreadable(file, error) from None
    if len(content) > most_bytes:
        limit = f"at most {format_bytes(most_bytes)}, unpacked"
        raise SnapshotError("too large", where=str(file), expected=limit, hint=_HINT)
    return content


class _NameFound(Exception):  # noqa: N818  (it says what is in the file)
    """A pickle names a class or a function."""


class _PlainUnpickler(pickle.Unpickler):
    """Makes nothing but plain data."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NameFound(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _NameFound(f"persistent id {pid!r:.80}")


def _unpickled(content: bytes) -> object:
    return _PlainUnpickler(io.BytesIO(content)).load()


@contextlib.contextmanager
def _memory_bounded(nbytes: int) -> Iterator[None]:
    """Bound the address space of this process while the data of a file of so many bytes are made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = _address_space() + max(_AT_LEAST, _GROWTH * nbytes)
    if soft != resource.RLIM_INFINITY:
        bound = min(bound, soft)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Return the bytes of address space that this process has taken (proc(5), the first number of statm)."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()
