"""The catalogue of GPUs that memory is predicted for: memory, speed, and the source of each figure.

The table is `gpus.toml`; this module reads, checks and searches it. Nothing here asks a device; the GPUs
of this machine are found by `ftbench.plan.devices`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.base.frozen import FrozenModel, Name, PositiveInt
from ftbench.base.units import MIB, format_bytes, parse_bytes

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
Size = Annotated[
    PositiveInt, BeforeValidator(lambda v: parse_bytes(v) if isinstance(v, str) else v)
]
Rate = Annotated[float, Field(gt=0)]

# NVIDIA, CUDA GPU Compute Capability: https://developer.nvidia.com/cuda-gpus
_GENERATIONS: Mapping[tuple[int, int], str] = {
    **dict.fromkeys(((6, 0), (6, 1)), "Pascal"),
    (7, 0): "Volta",
    (7, 5): "Turing",
    **dict.fromkeys(((8, 0), (8, 6)), "Ampere"),
    (8, 9): "Ada",
    (9, 0): "Hopper",
    **dict.fromkeys(((10, 0), (10, 3), (12, 0)), "Blackwell"),
}
_CAPABILITIES = tuple(_GENERATIONS)

# The context of one card differs with the driver, the CUDA release and the kernels that a model loads.
# With these margins, any one measurement covers all others of the same chip (a test checks this).
CONTEXT_LOW_SHARE = 0.65
CONTEXT_HIGH_SHARE = 1.3
CONTEXT_GROWTH_BYTES = 100 * MIB  # at least: a context grew by 94 MiB during one run
# The cards measured in gpus.toml take between 2.5 and 5.5 MiB per multiprocessor.
CONTEXT_PER_MULTIPROCESSOR_BYTES = (2 * MIB, round(6.5 * MIB))
# For an unknown card: the range over all measured cards in gpus.toml, T4 to B200.
UNKNOWN_CONTEXT_BYTES = (64 * MIB, 926 * MIB)
MEASURED_HERE = "measured by `ftbench calibrate`"  # the source of a context
ESTIMATED = (
    "estimated from the number of multiprocessors: 2 to 6.5 MiB each, as on the cards measured"
)

# CUDA reports 0.91 (a T4, ECC on) to 0.996 (an RTX PRO 6000) of the size printed on the box.
NOMINAL_SHARE = 0.90
_BARE_SIZE = re.compile(r"\s*[\d.]+\s*([KMGT]i?)?B\s*", re.IGNORECASE)


class ListPrice(FrozenModel):
    """What a provider asked for an hour of a card, on demand: USD, the day it was read, and where."""

    usd_per_hour: Rate
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    source: Name


class Gpu(FrozenModel):
    """One kind of card. `gpus.toml` explains each field and how its figure was found."""

    name: Name
    products: tuple[Name, ...] = Field((), description="The names that the driver gives it.")
    compute_capability: tuple[int, int]
    multiprocessors: PositiveInt | None = None
    memory_kind: Literal["reported", "nominal"]
    memory_low_bytes: Size = Field(description="The lowest total that CUDA may report.")
    memory_bytes: Size = Field(description="The highest total that CUDA may report.")
    memory_source: Name
    context_measured_bytes: tuple[Size, ...] = ()
    context_source: Name = ESTIMATED
    bandwidth_bytes_per_s: Rate | None = None
    peak_flops: dict[Dtype, Rate] = Field(
        {}, description="Dense FLOP/s of each type that the card computes in."
    )
    boost_hz: Rate | None = Field(None, description="The boost clock of the data sheet.")
    tdp_watts: Rate | None = Field(None, description="The power limit as delivered.")
    l2_bytes: Size | None = Field(None, description="The second-level cache.")
    spec_source: str = ""
    spec_check: str = ""
    list_price: ListPrice | None = None
    note: str = ""

    @property
    def generation(self) -> str:
        """Return NVIDIA's name of the generation that the card's chip belongs to."""
        return _GENERATIONS[self.compute_capability]

    @property
    def context_low_bytes(self) -> int:
        """Return the least memory of the card that a process's CUDA context takes."""
        return self._context_bytes[0]

    @property
    def context_high_bytes(self) -> int:
        """Return the most memory that the context takes, with kernels loaded lazily (CUDA >= 11.7's default)."""
        return self._context_bytes[1]

    @property
    def _context_bytes(self) -> tuple[int, int]:
        if self.context_measured_bytes:
            least, most = min(self.context_measured_bytes), max(self.context_measured_bytes)
            grown = max(CONTEXT_HIGH_SHARE * most, most + CONTEXT_GROWTH_BYTES)
            return int(CONTEXT_LOW_SHARE * least), int(grown)
        if self.multiprocessors is None:
            return UNKNOWN_CONTEXT_BYTES
        low, high = CONTEXT_PER_MULTIPROCESSOR_BYTES
        return low * self.multiprocessors, high * self.multiprocessors

    @model_validator(mode="after")
    def _figures_agree(self) -> Self:
        if self.compute_capability not in _CAPABILITIES:
            raise ValueError(f"compute_capability: {self.compute_capability} is not known")
        if self.memory_low_bytes > self.memory_bytes:
            raise ValueError("memory_low_bytes is more than memory_bytes")
        if self.memory_low_bytes <= self.context_high_bytes:
            raise ValueError("the CUDA context would take all of the memory")
        if bool(self.context_measured_bytes) != (not self.context_source.startswith("estimated")):
            raise ValueError("context_measured_bytes and context_source go together")
        return self


def capacity_bytes(gpu: Gpu) -> tuple[int, int]:
    """Return the least and the most bytes that torch may reserve on an otherwise empty card.

    That is the card's total less the CUDA context, each an interval. A display, another process or
    NCCL reduces it further.
    """
    low = gpu.memory_low_bytes - gpu.context_high_bytes
    return low, gpu.memory_bytes - gpu.context_low_bytes


@cache
def load_gpus() -> Mapping[str, Gpu]:
    """Return the catalogue: each GPU by its name, in the order of the file; read once."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["gpus"]
    return MappingProxyType({k: Gpu.model_validate({"name": k, **v}) for k, v in entries.items()})


def find_gpu(text: str) -> Gpu:
    """Return the GPU that `--gpu` names: by its name in the catalogue, a product's name, or a memory size.

    Capitals and separators make no difference: `rtx-3060`, `GeForce-RTX-3060` and `NVIDIA GeForce
    RTX 3060` are one card. For a size such as `24GiB` see `custom_gpu`. Raises ProfileError.
    """
    if _BARE_SIZE.fullmatch(text):
        return custom_gpu(text)
    gpus = load_gpus()
    wanted = _comparable(text)
    for gpu in gpus.values():
        if wanted in map(_comparable, (gpu.name, *gpu.products)):
            return gpu
    raise ProfileError(
        "no such GPU in the catalogue",
        where="--gpu",
        got=text,
        nearest=_nearest(wanted, text, gpus),
        hint=f"{', '.join(gpus)}; or the size of another card's memory, such as 24GiB",
    )


def same_name(one: str, other: str) -> bool:
    """Return whether two names of cards differ at most in capitals, separators and brand names."""
    return _comparable(one) == _comparable(other)


def _nearest(wanted: str, text: str, names: Collection[str]) -> str | None:
    """Return the names that begin with the given one (`a100`), else the closest name."""
    longer = [name for name in names if wanted and _comparable(name).startswith(wanted)]
    return ", ".join(longer[:3]) or nearest_name(text.lower().replace(" ", "-"), names)


def _comparable(name: str) -> str:
    """Return a card's name without capitals, separators and brand names."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\b(nvidia|geforce|tesla)\b", "", name.lower()))


def known_capability(capability: tuple[int, int]) -> tuple[int, int]:
    """Return the largest known compute capability that is not above this one; of an older card, the least."""
    return max((one for one in _CAPABILITIES if one <= capability), default=_CAPABILITIES[0])


def custom_gpu(memory: str, compute_capability: tuple[int, int] = (8, 0)) -> Gpu:
    """Return an unnamed card with this much memory; an Ampere card by default.

    A size in GB, GiB or larger units is the one on the box, of which CUDA reports 90 to 100 %. A size in
    bytes, KiB or MiB is the total that CUDA reports, and is taken as it is. The context's interval is that of
    all known cards. Raises ProfileError.
    """
    if compute_capability not in _CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in _CAPABILITIES)
        got = ".".join(map(str, compute_capability))
        raise ProfileError("unknown compute capability", where="--gpu", got=got, expected=known)
    try:
        total = parse_bytes(memory)
    except ValueError as error:
        raise ProfileError(str(error), where="--gpu") from None
    nominal = re.search(r"[GT]i?B\s*$", memory, re.IGNORECASE) is not None
    low = int(NOMINAL_SHARE * total) if nominal else total
    context_high = UNKNOWN_CONTEXT_BYTES[1]
    if low <= context_high:
        raise ProfileError(
            "too little memory for a GPU",
            where="--gpu",
            got=memory,
            expected=f"more than the {format_bytes(context_high)} that the CUDA context alone may take",
        )
    return Gpu(
        name=memory.strip(),
        compute_capability=compute_capability,
        memory_kind="nominal" if nominal else "reported",
        memory_low_bytes=low,
        memory_bytes=total,
        memory_source="the size given by --gpu",
        context_source="estimated: the range over all cards of the catalogue",
    )
