"""Format 1 of a baseline's file, in which cells, slopes, parts and groups of runs had names in words.

Nothing writes it any more. A name that does not say what it should is refused: a figure is never given to another
cell than the one that it was accepted for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from ftbench.base.frozen import FrozenModel
from ftbench.gating.baseline import (
    Baseline,
    CardBytes,
    CellBytes,
    Group,
    LargestFit,
    Measured,
    MeasuredCell,
    SeedScore,
    Slope,
)
from ftbench.gating.places import CellKey, NamedSteps
from ftbench.plan.groups import CellShape
from ftbench.plan.settings import SETTINGS, setting
from ftbench.plan.sources import DataSource
from ftbench.records.prediction import AttentionKernel, MarkName, Moment, Part
from ftbench.records.scores import share_variance

_CELL = re.compile(r"length (\d+), batch (\d+)(?:, documents (\d+))?")
_LENGTH = re.compile(r"length (\d+)")
_PER_SAMPLE = re.compile(r"bytes a sample at length (\d+), batch (\d+) to (\d+)")
_PER_TOKEN = re.compile(r"bytes a token at batch (\d+), length (\d+) to (\d+)")
# All that could tell groups apart: settings, and the facets of a model and its data.
_FACETS = ("model revision", "tokenizer revision", "dataset revision", "weights")
_SETTING_NAMES = "|".join(
    (
        *sorted({*SETTINGS, *DataSource.model_fields, *_FACETS}, key=len, reverse=True),
        r"(?:config|lora)\.\w+",
    )
)
_BETWEEN_SETTINGS = re.compile(rf", (?=(?:{_SETTING_NAMES}) )")
_SETTING = re.compile(rf"({_SETTING_NAMES}) (.*)", re.DOTALL)


class _CellBytes(FrozenModel):
    tensors_bytes: int
    cards: dict[str, CardBytes] = Field(default_factory=dict)


class _Group(FrozenModel):
    settings: dict[str, Any]
    cells: dict[str, _CellBytes]
    slopes: dict[str, float]
    largest: dict[str, dict[str, int]] = Field(default_factory=dict)
    reference: str
    moment: Moment
    parts: dict[str, dict[MarkName, int]]


class _MeasuredCell(FrozenModel):
    figures: dict[str, tuple[float, ...]]
    accuracies: dict[str, float]


class _Measured(FrozenModel):
    machine: dict[str, str]
    workload: dict[str, Any]
    cells: dict[str, dict[str, _MeasuredCell]]


class _Baseline(FrozenModel):
    profile: str
    versions: dict[str, str]
    architectures: dict[str, str] = Field(default_factory=dict)
    attention_kernel: AttentionKernel | None = None
    workload: dict[str, Any]
    groups: tuple[_Group, ...]
    measured: _Measured | None = None


def read_format_1(data: Any) -> Baseline:
    """Return the baseline that the content of a file of format 1 is.

    Raises pydantic's ValidationError, or ValueError with the place, for content that is none.
    """
    old = _Baseline.model_validate(data)
    return Baseline(
        profile=old.profile,
        versions=old.versions,
        architectures=old.architectures,
        attention_kernel=old.attention_kernel,
        workload=old.workload,
        groups=tuple(_group(f"groups.{number}", one) for number, one in enumerate(old.groups)),
        measured=None if old.measured is None else _measured(old.measured),
    )


def _group(where: str, old: _Group) -> Group:
    return Group(
        settings=old.settings,
        cells=tuple(
            CellBytes(
                cell=_cell(f"{where}.cells", name),
                tensors_bytes=one.tensors_bytes,
                cards=one.cards,
            )
            for name, one in old.cells.items()
        ),
        slopes=tuple(_slope(f"{where}.slopes", *item) for item in old.slopes.items()),
        largest=tuple(_largest(f"{where}.largest", old)),
        reference=_cell(f"{where}.reference", old.reference),
        moment=old.moment,
        parts=tuple(_part(f"{where}.parts", *item) for item in old.parts.items()),
    )


def _matched(pattern: re.Pattern[str], where: str, name: str) -> re.Match[str]:
    found = pattern.fullmatch(name)
    if found is None:
        raise ValueError(f"{where}: not a name of format 1: {name!r}")
    return found


def _shape(where: str, name: str) -> CellShape:
    length, batch, documents = _matched(_CELL, where, name).groups()
    return CellShape(
        max_length=int(length),
        per_device_train_batch_size=int(batch),
        train_size=None if documents is None else int(documents),
    )


def _cell(where: str, name: str) -> CellKey:
    return NamedSteps(name=name) if name == "step" else _shape(where, name)


def _slope(where: str, name: str, nbytes: float) -> Slope:
    if _PER_SAMPLE.fullmatch(name):
        fixed, low, high = map(int, _matched(_PER_SAMPLE, where, name).groups())
        axis = "per_device_train_batch_size"
    else:
        fixed, low, high = map(int, _matched(_PER_TOKEN, where, name).groups())
        axis = "max_length"
    return Slope.model_validate(
        {"axis": axis, "fixed": fixed, "low": low, "high": high, "bytes_per_unit": nbytes}
    )


def _largest(where: str, old: _Group) -> Iterator[LargestFit]:
    for gpu, sizes in old.largest.items():
        for name, batch in sizes.items():
            length = int(_matched(_LENGTH, f"{where}.{gpu}", name)[1])
            yield LargestFit(gpu=gpu, max_length=length, batch=batch)


def _part(where: str, name: str, nbytes: dict[MarkName, int]) -> Part:
    """Return a part; of its four names only the module's can hold the separator."""
    role, *module, operator, dtype = name.split(" | ")
    if not module:
        raise ValueError(f"{where}: not a name of format 1: {name!r}")
    return Part(role=role, module=" | ".join(module), operator=operator, dtype=dtype, nbytes=nbytes)


def _measured(old: _Measured) -> Measured:
    eval_size = old.workload.get("eval_size")
    cells = (
        MeasuredCell(
            settings=_settings("measured.cells", group),
            cell=_shape(f"measured.cells.{group}", name),
            figures=one.figures,
            scores={
                seed: SeedScore(value=value, standard_error=_error(value, eval_size))
                for seed, value in one.accuracies.items()
            },
        )
        for group, named in old.cells.items()
        for name, one in named.items()
    )
    return Measured(machine=old.machine, workload=old.workload, cells=tuple(cells))


def _error(accuracy: float, eval_size: int | None) -> float | None:
    """Return the standard error of an accuracy over so many examples; None if they are not known."""
    return math.sqrt(share_variance(accuracy, eval_size)) if eval_size else None


def _settings(where: str, words: str) -> dict[str, Any]:
    """Return the settings that the name of a group of runs says; raises ValueError if that is not certain."""
    found: dict[str, Any] = {}
    for piece in _BETWEEN_SETTINGS.split(words) if words else ():
        name, word = _matched(_SETTING, where, piece).groups()
        found[name] = _value(name, word)
    if ", ".join(f"{name} {_word(value)}" for name, value in found.items()) != words:
        raise ValueError(f"{where}: not the settings of a group of runs: {words!r}")
    return found


_WORDS = {"True": "on", "False": "off", "None": "default"}


def _word(value: Any) -> str:
    return _WORDS.get(str(value), str(value))


def _value(name: str, word: str) -> Any:
    if word == setting(name).default:
        return word
    for value in (True, False, None):
        if word == _word(value):
            return value
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word
