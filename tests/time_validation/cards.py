"""The cards that step times were published for, by the names that CELLS.csv has."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ftbench.estimation.card_speed import CardSpeed

_GEFORCE = ("GTX ", "RTX 20", "RTX 30", "RTX 40", "RTX 50")
_LAPTOP = ("Max-Q", "Laptop")


@cache
def cards() -> Mapping[str, CardSpeed]:
    """Return every card by its name."""
    entries = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: _speed(name, entry) for name, entry in entries.items()}


def _speed(name: str, entry: Mapping[str, object]) -> CardSpeed:
    major, minor = entry["capability"]
    peaks = {dtype: entry[dtype] * 1e12 for dtype in ("fp32", "tf32", "fp16") if dtype in entry}
    if "tf32" in peaks:  # cards that compute TF32 compute bf16, at the rate of fp16
        peaks["bf16"] = peaks["fp16"]
    return CardSpeed(
        name=name,
        compute_capability=(major, minor),
        peak_flops=peaks,
        bandwidth_bytes_per_s=entry["bandwidth"] * 1e9,
        multiprocessors=entry["multiprocessors"],
        boost_hz=entry["boost_mhz"] * 1e6,
        tdp_watts=entry["tdp_watts"],
        geforce=name.startswith(_GEFORCE) and not name.endswith(_LAPTOP),
    )
