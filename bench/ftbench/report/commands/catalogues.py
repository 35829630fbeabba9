"""Catalogues: the profiles and the cards that commands know by name, as tables and as JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from ftbench.base.errors import FtbenchError
from ftbench.base.units import GIB
from ftbench.plan.gpus import Dtype, Gpu
from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import load_profile, profile_names
from ftbench.plan.resolve import cell_count
from ftbench.report.elements.table import ABSENT, Table

# The first sentence; of a question, the one that follows it as well.
_SUMMARY = re.compile(r"(?:.+?\?\s)?.+?[.?!](?=\s|$)")
_RATES: tuple[Dtype, ...] = ("fp32", "tf32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True)
class ListedProfile:
    """A profile with its number of cells; or, for a file that is no profile, the reason."""

    name: str
    profile: Profile | None = None
    cells: int | None = None
    refused: str | None = None

    @property
    def summary(self) -> str:
        """Return the first sentence of the description; of a file that is no profile, the reason."""
        if self.profile is None:
            return f"cannot be used: {self.refused}"
        text = " ".join(self.profile.description.split())
        found = _SUMMARY.match(text)
        return found.group() if found else text


def list_profiles() -> list[ListedProfile]:
    """Return all profiles that have a name, in the order of the names."""
    return [_listed(name) for name in profile_names()]


def _listed(name: str) -> ListedProfile:
    try:
        profile = load_profile(name)
        return ListedProfile(name, profile, cell_count(profile))
    except FtbenchError as error:
        return ListedProfile(name, refused=str(error).splitlines()[0])


def profiles_table(listed: Sequence[ListedProfile]) -> Table:
    """Return one row per profile."""
    rows = []
    for one in listed:
        workload = one.profile.workload if one.profile else None
        rows.append(
            (
                one.name,
                ABSENT if one.cells is None else str(one.cells),
                one.summary,
                workload.dataset if workload else ABSENT,
                workload.model if workload else ABSENT,
            )
        )
    return Table(
        title="Profiles",
        columns=("profile", "cells", "what it measures", "data", "model"),
        rows=tuple(rows),
        numeric=(False, True, False, False, False),
    )


def profiles_json(listed: Sequence[ListedProfile]) -> list[dict[str, Any]]:
    """Return the profiles as JSON data; `error` is null for those that can be used."""
    return [
        {
            "name": one.name,
            "summary": one.summary if one.profile else None,
            "cells": one.cells,
            "task": one.profile.workload.task if one.profile else None,
            "model": one.profile.workload.model if one.profile else None,
            "dataset": one.profile.workload.dataset if one.profile else None,
            "error": one.refused,
        }
        for one in listed
    ]


def gpus_table(cards: Sequence[Gpu]) -> Table:
    """Return one row per card: memory as CUDA reports it, and the rates of its data sheet."""
    rows = [
        (
            gpu.name,
            f"{gpu.memory_bytes / GIB:.1f}",
            _scaled(gpu.bandwidth_bytes_per_s, 1e9),
            *(_scaled(gpu.peak_flops.get(rate), 1e12) for rate in _RATES),
            gpu.generation,
            ".".join(map(str, gpu.compute_capability)),
            _scaled(gpu.tdp_watts, 1),
            f"{gpu.list_price.usd_per_hour:.2f}" if gpu.list_price else ABSENT,
        )
        for gpu in cards
    ]
    return Table(
        title="Cards: memory in GiB, bandwidth in GB/s, arithmetic in TFLOP/s, power in W, one list price",
        columns=(
            *("card", "memory", "bandwidth", *_RATES),
            *("generation", "capability", "power", "USD per hour"),
        ),
        rows=tuple(rows),
        numeric=(False, True, True, *(True for _ in _RATES), False, True, True, True),
        optional=("capability", "power"),
    )


def _scaled(value: float | None, unit: float) -> str:
    """Return a figure of a data sheet in a unit, with no more digits than sheets have."""
    if value is None:
        return ABSENT
    scaled = value / unit
    return f"{scaled:,.0f}" if scaled >= 100 or scaled == int(scaled) else f"{scaled:.3g}"


def gpus_json(cards: Sequence[Gpu]) -> list[dict[str, Any]]:
    """Return the catalogue as JSON data: bytes, bytes and FLOP per second, Hz, W, and the sources."""
    return [{**gpu.model_dump(mode="json"), "generation": gpu.generation} for gpu in cards]
