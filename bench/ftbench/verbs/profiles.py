"""Profiles as Python callers give them: a name, a file, a dictionary, or one that was loaded."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbench.base.errors import ProfileError
from ftbench.plan.accelerate_config import with_accelerate_config
from ftbench.plan.one_cell import toml_value
from ftbench.plan.profile import IN_PYTHON, Profile
from ftbench.plan.profile_file import apply_override, build_profile, load_profile

UNNAMED = "profile"  # the name of a mapping without one
ProfileLike = str | os.PathLike[str] | Mapping[str, Any] | Profile


def profile_of(profile: ProfileLike, settings: Mapping[str, Any] | None = None) -> Profile:
    """Return a validated profile, with `settings` in place of its own.

    A profile is the name of one, the path of a TOML file, a mapping with the same keys as such a file, or a
    `Profile`. The keys of `settings` are dotted, as in `{"training.learning_rate": 5e-5}`; `grid.AXIS` replaces
    that axis. Raises ProfileError.
    """
    overrides = texts_of(settings or {})
    if isinstance(profile, Profile):
        if overrides:
            raise ProfileError(
                "this profile is loaded already",
                where="settings",
                expected="a name, a file or a mapping",
            )
        return profile
    if not isinstance(profile, Mapping):
        return load_profile(os.fspath(profile), overrides)
    data = copy.deepcopy(dict(profile))
    name = data.pop("name", UNNAMED)
    for override in overrides:
        apply_override(data, override)
    asked = {"name": name, "reference": IN_PYTHON, "overrides": overrides}
    return build_profile({**with_accelerate_config(data, Path()), **asked}, where="profile")


def texts_of(values: Mapping[str, Any]) -> list[str]:
    """Return values as the command line has them, each `KEY=VALUE` with a TOML value; raises ProfileError."""
    return [f"{key}={toml_value(_plain(value, key))}" for key, value in values.items()]


def _plain(value: Any, key: str) -> Any:
    """Return a value as TOML can have it; raises ProfileError if there is no such value."""
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(one, key) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one, key) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise ProfileError(
        "no value of a profile",
        where=key,
        got=repr(value),
        expected="a number, text, true or false, or a list or mapping of these",
    )
