"""Bytes, seconds and rates: parsing and formatting, used only where the program reads or prints.

Inside, memory is an `int` of bytes and time a `float` of seconds, with the unit in the name.
Memory is printed in powers of 1024 (MiB, GiB), rates in powers of 1000 (GFLOP/s).
"""

from __future__ import annotations

from typing import Any

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


def format_bytes(count: int) -> str:
    """Return bytes as text in the largest unit (powers of 1024) that keeps a digit in front."""
    if abs(count) < KIB:
        return f"{count} B"
    units = ((1024**4, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
    size, name = next(unit for unit in units if abs(count) >= unit[0])
    value = count / size
    return f"{value:.0f} {name}" if abs(value) >= 100 else f"{value:.1f} {name}"


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
