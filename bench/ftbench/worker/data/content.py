"""Opening data files: compression, Git LFS pointers, and the encoding of texts, given or found."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import charset_normalizer

from ftbench.base.errors import WorkloadError, nearest_name

WHERE = "workload.dataset"
_LFS = b"version https://git-lfs.github.com/spec/"
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
# The longest marks first: UTF-32's begins as UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Western Europe's encoding: charset-normalizer cannot tell the Latin ones apart (it took French for cp1257), and by
# far the most files with Latin letters that are not UTF-8 are in this one. Its letters and signs in such texts:
_WESTERN = "cp1252"
_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœšžßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŸŒŠŽ")
_SIGNS = frozenset("\u00a0¡¿«»‹›“”„‘’‚–—…•·°§©®™€£¥¢ªº½¼¾²×\u00ad")  # noqa: RUF001 - these very signs
_KNOWN = (
    "utf-8",
    "utf-16",
    "latin-1",
    "cp1252",
    "cp1250",
    "cp1251",
    "gb18030",
    "shift_jis",
    "euc_kr",
)


@dataclasses.dataclass
class Reading:
    """How text files are read: settings, or None if they are to be found; and notes of what was found."""

    separator: str | None = None
    encoding: str | None = None
    notes: dict[str, None] = dataclasses.field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a note once."""
        self.notes[text] = None


def unreadable(file: Path, cause: object, *, hint: str | None = None) -> WorkloadError:
    """Return the error for a file that its reader rejects, with the reader's own words."""
    return WorkloadError(
        f"{file.name} cannot be read: {cause}", where=WHERE, got=str(file), hint=hint
    )


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a data file, decompressed; raises WorkloadError if it cannot be read or is a Git LFS pointer."""
    try:
        with file.open("rb") as raw:
            start = raw.read(len(_LFS))
            raw.seek(0)
            if start == _LFS:
                raise unreadable(
                    file,
                    "it is a Git LFS pointer, a stand-in for the data",
                    hint="git lfs pull, in the repository that it comes from",
                )
            if start.startswith(_GZIP):
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream  # type: ignore[misc]  # it reads bytes as a file does
            else:
                yield raw
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        raise unreadable(file, getattr(error, "strerror", None) or error) from error


@contextlib.contextmanager
def opened_text(file: Path, reading: Reading) -> Iterator[io.TextIOWrapper]:
    """Open a file as text, with line ends as they are in the file.

    Raises WorkloadError, with the offset of the byte, if the bytes do not fit the encoding.
    """
    encoding = reading.encoding or _found_encoding(file, reading)
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise WorkloadError(
            "no such encoding",
            where="workload.encoding",
            got=encoding,
            expected=f"a name that Python knows: {', '.join(_KNOWN)}, ...",
            nearest=nearest_name(encoding, _KNOWN),
        ) from error
    try:
        with opened(file) as stream:
            yield io.TextIOWrapper(stream, encoding=encoding, newline="")
    except UnicodeError:  # a stream knows the offset in its buffer only
        raise _not_in(file, encoding) from None


def read_text(file: Path, reading: Reading) -> str:
    """Return the text of a small file; raises WorkloadError as `opened_text` does."""
    if reading.encoding is None:
        with opened(file) as stream:
            data = stream.read()
        if not data.startswith(tuple(_MARKS)) and b"\0" not in data:
            with contextlib.suppress(UnicodeDecodeError):
                return data.decode()
    with opened_text(file, reading) as text:
        return text.read()


def _not_in(file: Path, encoding: str) -> WorkloadError:
    """Return the error for a file whose bytes do not fit an encoding, with the first offset."""
    with opened(file) as stream:
        offset = _first_misfit(stream, encoding)
    where = "" if offset is None else f" at byte {offset:,}"
    return unreadable(
        file,
        f"it is not in the encoding {encoding}{where}",
        hint='name its encoding in the profile: encoding = "cp1252", under [workload]',
    )


def _first_misfit(stream: BinaryIO, encoding: str) -> int | None:
    """Return the offset of the first byte that does not fit an encoding; None if all do."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset = 0
    while True:
        chunk = stream.read(_CHUNK)
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return offset - pending + error.start
        except UnicodeError:  # UTF-16 without a mark that it needs
            return offset
        if not chunk:
            return None
        offset += len(chunk)


def _found_encoding(file: Path, reading: Reading) -> str:
    """Return the encoding of a file: by its mark, UTF-8 if it fits, or else a guess, which is noted."""
    with opened(file) as stream:
        start = stream.read(4)
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked is not None:
        return marked
    with opened(file) as stream:
        misfit = _first_misfit(stream, "utf-8")
    with opened(file) as stream:
        if misfit is None:
            if b"\0" not in stream.read(_CHUNK):
                return "utf-8"
            misfit = 0
            stream.seek(0)
        stream.seek(max(0, misfit - _CHUNK // 2) // 4 * 4)
        sample = stream.read(_CHUNK)
    found = _guess(sample)
    if found is None:
        raise _not_in(file, "utf-8")
    words = _first_words(sample, found)
    shown = f"; its first words beyond ASCII are {words}" if words else ""
    place = f"{file.name} is not UTF-8 (byte {misfit:,})"
    reading.note(f"{place} and is read as {found}, found from its bytes{shown}")
    return found


def _guess(sample: bytes) -> str | None:
    """Return the most plausible encoding of bytes that are not UTF-8; None if none is."""
    if _is_western(sample):
        return _WESTERN
    best = charset_normalizer.from_bytes(sample).best()
    return None if best is None else best.encoding.replace("_", "-")


def _is_western(sample: bytes) -> bool:
    """Return whether bytes are a Latin text with some of Western Europe's letters and signs, and no others.

    In texts of other scripts, nearly all letters of a word are beyond ASCII.
    """
    try:
        text = sample.decode(_WESTERN)
    except UnicodeDecodeError:
        return False
    beyond = [letter for letter in text if not letter.isascii()]
    if not all(letter in _LETTERS or letter in _SIGNS for letter in beyond):
        return False
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    letters = sum(map(len, words))
    return 2 * sum(not letter.isascii() for word in words for letter in word) <= letters


def _first_words(sample: bytes, encoding: str) -> str:
    words = re.findall(r"\S+", sample.decode(encoding, errors="replace"))
    beyond = dict.fromkeys(word[:40] for word in words if not word.isascii())
    return ", ".join(map(repr, list(beyond)[:3]))
