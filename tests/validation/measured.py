"""Measured values as they were printed: a number, a range or a failure, in a unit, rounded to its last digit."""

from __future__ import annotations

import re
from typing import NamedTuple

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30, "bytes": 1, "B": 1}
_NUMBER = re.compile(r"\d+(?:\.(\d+))?")


class Printed(NamedTuple):
    """The ends of a printed value in bytes, and whether the run died; all None if it says neither."""

    low: float | None = None
    high: float | None = None
    failed: bool | None = None


def printed(value: str, unit: str) -> Printed:
    """Return a printed value: `939.21` is all that rounds to it, `2.5-2.6` what lies between, `OOM` a failure."""
    if re.match(r"\s*(oom|out of memory|failed)", value, re.IGNORECASE):
        return Printed(failed=True)
    value = value.replace(",", "")
    ends = value.split("-") if re.fullmatch(r"\s*[\d.]+-[\d.]+\s*", value) else [value]
    found = [_NUMBER.fullmatch(end.strip()) for end in ends]
    if unit not in _UNITS or None in found:
        return Printed()
    numbers = [(float(match[0]), len(match[1] or "")) for match in found if match]
    half = (
        0.5 * 10.0 ** -min(digits for _, digits in numbers) if unit not in ("bytes", "B") else 0.0
    )
    low, high = min(numbers)[0] - half, max(numbers)[0] + half
    return Printed(low * _UNITS[unit], high * _UNITS[unit], False)
