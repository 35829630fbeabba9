"""Pairs: which group of a baseline is compared with which group of new figures. Pure.

A group is what its settings make it: those that all cells have in common, and those that tell it from the
others. If a setting was changed in the profile, a group of the baseline has no equal; then it is compared with
the group in its place, and the change is ascribed to the setting, as it would be to a library. Only another
model or other data makes another workload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ftbench.gating.baseline import Baseline, Group
from ftbench.gating.reasons import SettingChange
from ftbench.plan.groups import settings_key
from ftbench.plan.settings import differing, memory_view, without_defaults
from ftbench.plan.sources import DataSource

_MODEL = ("model", "model revision", "weights", "tokenizer revision", "dataset", "dataset revision")
_CONFIG = "config."  # the prefix of what a profile changes in the model's configuration
_STEPS = "steps"  # of a test's steps, or of a program's
_PROGRAM = "program"
_WORKLOAD = frozenset((*_MODEL, *DataSource.model_fields, _STEPS, _PROGRAM))


def other_workload(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of what makes two workloads different: of the model and the data, not of settings."""
    return [
        name for name in differing(memory_view(before), memory_view(after)) if _of_workload(name)
    ]


def _of_workload(name: str) -> bool:
    return name in _WORKLOAD or name.startswith(_CONFIG)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two groups to compare, or one without the other; `changes` has the settings in which they differ."""

    before: Group | None
    after: Group | None
    changes: tuple[SettingChange, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings that tell the group apart now, or in the baseline if it is not there now."""
        group = self.after or self.before
        return group.settings if group else {}


def paired(
    before: Baseline, after: Baseline, refused: Collection[Mapping[str, Any]] = ()
) -> list[Pair]:
    """Return the groups of both sides in pairs, in the order of the baseline, then the new ones.

    `refused` has the settings of groups that have no figures now.
    """
    ours = {settings_key(_settings(before, group)): group for group in before.groups}
    theirs = {settings_key(_settings(after, group)): group for group in after.groups}
    found: dict[str, Pair] = {
        key: Pair(group, theirs.pop(key)) for key, group in ours.items() if key in theirs
    }
    left = {
        key: group
        for key, group in ours.items()
        if key not in found and group.settings not in refused
    }
    for old, new in list(_by_place(left, theirs)):
        changes = _changes(_settings(before, left[old]), _settings(after, theirs[new]))
        found[old] = Pair(left.pop(old), theirs.pop(new), changes)
    pairs = [found.get(key) or Pair(group, None) for key, group in ours.items()]
    return pairs + [Pair(None, group) for group in theirs.values()]


def _by_place(ours: Mapping[str, Group], theirs: Mapping[str, Group]) -> Iterator[tuple[str, str]]:
    """Yield the keys of groups that are told apart by the same settings, or are the only ones left."""
    free = dict(theirs)
    for old, group in ours.items():
        new = next((key for key, other in free.items() if other.settings == group.settings), None)
        if new is None and len(ours) == len(theirs) == 1:
            new = next(iter(free))
        if new is not None:
            del free[new]
            yield old, new


def _settings(baseline: Baseline, group: Group) -> dict[str, Any]:
    """Return all settings of a group that memory depends on, without those at their default."""
    common = {name: value for name, value in baseline.workload.items() if not _of_workload(name)}
    return memory_view(without_defaults(common | group.settings))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[SettingChange, ...]:
    return tuple(
        SettingChange(name, before.get(name), after.get(name)) for name in differing(before, after)
    )
