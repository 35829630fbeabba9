"""Files that are whole or absent: atomic writes, checksums, and JSON that is checked before it is used.

A link is never followed, NaN is not accepted, and a file far larger than any real one is not read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ftbench.base.errors import DamagedFile, RunDirectoryError
from ftbench.base.units import MIB, format_bytes

Model = TypeVar("Model", bound=BaseModel)
# The size of a file in bytes, and when its content and its state changed, in nanoseconds since 1970.
Stamp = tuple[int, int, int]
# Far above any real file here (a record is some 20 KiB): a larger one is not read into memory.
MAX_JSON_BYTES = 64 * MIB


def checksum(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON data; layout and the order of keys make no difference."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a regular file, which differs after every change; None if there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - thousands of them are asked for
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, even after a crash.

    Text is written as UTF-8; its line endings are kept. Raises RunDirectoryError.
    """
    data = content if isinstance(content, bytes) else content.encode()
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)  # opening a link would follow it
        with beside.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):  # nothing can be removed where nothing can be written
            beside.unlink(missing_ok=True)
        raise unwritable(file, error) from error


def cache_folder() -> Path:
    """Return this program's folder in the user's cache folder (XDG base directories)."""
    named = os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return (Path(named) if named else Path(home) / ".cache") / "ftbench"


def remove_link(place: Path) -> None:
    """Remove what is no file or folder of its own from a place that is about to be written to.

    A symbolic link, a second name of a file, a pipe or a device: writing there would reach elsewhere.
    """
    try:
        status = place.lstat()
    except OSError:
        return
    own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if not own and not stat.S_ISDIR(status.st_mode):
        place.unlink()


def read_regular(file: Path, most_bytes: int, *, follow_links: bool = False) -> str:
    """Return the text of a regular file; raises OSError or ValueError, also for a pipe or a device.

    Those are not waited for. The name of a user's own file may be a link: `follow_links`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(file, flags)
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        text = stream.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ValueError(f"larger than {format_bytes(most_bytes)}")
    return text


def unwritable(path: Path, error: OSError) -> RunDirectoryError:
    """Return the error for a path that cannot be written, with a hint at the remedy."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return RunDirectoryError(
        "the disk is full" if full else f"cannot be written: {error.strerror}",
        where=str(path),
        hint="finished cells are kept; free some space and run the same command again"
        if full
        else "choose another directory with --out",
    )


MOVE_AWAY = "move the file away and run again: its content is made anew"


def load_json(file: Path) -> Any:
    """Return the JSON data in a file; raises DamagedFile. A link is not followed, NaN not accepted."""

    def no_number(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(read_regular(file, MAX_JSON_BYTES), parse_constant=no_number)
    except (OSError, ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else error
        raise DamagedFile(f"cannot be read: {what}", where=str(file), hint=MOVE_AWAY) from error


def read_json(file: Path, model: type[Model]) -> Model:
    """Return the content of a JSON file as a model; raises DamagedFile that says what is wrong with it."""
    return validated(load_json(file), file, model)


def validated(data: Any, file: Path, model: type[Model]) -> Model:
    """Return JSON data as an instance of `model`; raises DamagedFile that names the first wrong field."""
    try:
        return model.model_validate(data)
    except (ValidationError, RecursionError) as error:
        text = str(error)
        if isinstance(error, ValidationError):
            finding = error.errors(include_url=False, include_context=False)[0]
            text = f"{'.'.join(map(str, finding['loc']))}: {finding['msg']}"
        raise DamagedFile(
            f"not a {model.__name__.lower()}: {text}", where=str(file), hint=MOVE_AWAY
        ) from error
