"""Peaks of memory by name, without parts: those of benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Peaks:
    """The peak of every benchmark that has one, in bytes, by its full name, and what it was found with."""

    nbytes: Mapping[str, int]
    versions: Mapping[str, str]
