"""Bytes, seconds and rates: parsing and formatting, used only where the program reads or prints.

Inside, memory is an `int` of bytes and time a `float` of seconds, with the unit in the name.
Memory is printed in powers of 1024 (MiB, GiB), rates in powers of 1000 (GFLOP/s).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import ByteSize, TypeAdapter, ValidationError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
SECONDS_PER_HOUR = 3600

_BYTES = TypeAdapter(ByteSize)


def parse_bytes(text: str) -> int:
    """Return the bytes in a text such as `4GiB`, `512 MB` or `1048576`.

    Raises ValueError for anything else; a number without a unit is bytes.
    """
    try:
        # ByteSize checks only the beginning of a text: it reads `1,5GiB` as one byte.
        if ByteSize.byte_string_re.fullmatch(text.strip()):
            return int(_BYTES.validate_python(text))
    except ValidationError:
        pass  # an unknown unit
    raise ValueError(f"not a size: {text!r}; expected a number and a unit, such as 4GiB")


def format_value(value: Any) -> str:
    """Return a setting or a count as text: `25,000`, `512` (also for a float 512.0), `2e-05`, a word."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int) and abs(number) >= 10_000:
        return f"{number:,}"
    return str(number)


class ByteUnit(NamedTuple):
    """A unit of memory: its size in bytes, and its name."""

    size: int
    name: str


_BYTE_UNITS = (
    ByteUnit(1024**4, "TiB"),
    ByteUnit(GIB, "GiB"),
    ByteUnit(MIB, "MiB"),
    ByteUnit(KIB, "KiB"),
    ByteUnit(1, "B"),
)


def byte_unit(counts: Iterable[float]) -> ByteUnit:
    """Return the largest unit (powers of 1024) that keeps a digit in front of the largest count."""
    most = max(map(abs, counts), default=0)
    return next((unit for unit in _BYTE_UNITS if most >= unit.size), _BYTE_UNITS[-1])


def format_bytes(count: int, unit: ByteUnit | None = None) -> str:
    """Return bytes as text: in a unit that others beside it have as well, or in that which suits it best."""
    size, name = unit or byte_unit([count])
    value = count / size
    if size == 1:
        return f"{count} {name}"
    if unit is None:
        return f"{value:.0f} {name}" if abs(value) >= 100 else f"{value:.1f} {name}"
    return f"{three_digits(value)} {name}"


def three_digits(value: float) -> str:
    """Return a number to three digits: 0.125, 1.25, 12.5, 125, 1,250; to two if it is below 0.01."""
    size = abs(value)
    if 0 < size < 0.00995:
        return f"{value:.2g}"
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def format_seconds(seconds: float) -> str:
    """Return a duration as text: `350 µs`, `12.3 ms`, `4.56 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_flops(rate: float) -> str:
    """Return FLOP/s as text, in powers of 1000."""
    for size, name in ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")):
        if rate >= size:
            return f"{rate / size:.1f} {name}"
    return f"{rate:.0f} FLOP/s"


def format_ratio(ratio: float) -> str:
    """Return a ratio as text: `1.98x`."""
    return f"{ratio:.2f}x"


def counted(count: int, word: str) -> str:
    """Return a number of things: `1 cell`, `2 cells`, `12,000 examples`."""
    return f"{count:,} {word}{'s' if count != 1 else ''}"
