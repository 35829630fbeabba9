"""Profile files: TOML is read, `--set` applied, and every error names the file, the key and the value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.base.files import read_regular
from ftbench.base.units import MIB
from ftbench.plan.accelerate_config import with_accelerate_config
from ftbench.plan.parallel import Parallel
from ftbench.plan.profile import Condition, GridBlock, LoraSettings, Profile, Run, Workload
from ftbench.plan.training_arguments import check_setting

MAX_PROFILE_BYTES = 4 * MIB  # far above any profile that a person wrote
NOT_IN_A_FILE = ("name", "reference", "overrides")


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile's file."""
    schema = Profile.model_json_schema()
    for name in NOT_IN_A_FILE:
        del schema["properties"][name]
    schema["required"] = [name for name in schema["required"] if name not in NOT_IN_A_FILE]
    return schema


def profile_folders() -> tuple[Path, ...]:
    """Return the folders in which a profile's name is looked up: the user's, then the shipped ones."""
    package = Path(__file__).parents[1]  # in a checkout, the folder is two levels above it
    return (Path("profiles"), package / "profiles", package.parents[1] / "profiles")


def profile_names() -> list[str]:
    """Return the names that `load_profile` finds, sorted."""
    return sorted({file.stem for folder in profile_folders() for file in folder.glob("*.toml")})


def find_profile(reference: str) -> Path:
    """Return the file of a profile, given its path or its name; raises ProfileError."""
    if reference.endswith(".toml") or "/" in reference:
        path = Path(reference)
        if path.is_file():
            return path
        raise ProfileError("no such profile", where=reference, hint=_names_hint())
    for folder in profile_folders():
        path = folder / f"{reference}.toml"
        if path.is_file():
            return path
    raise ProfileError(
        "no such profile",
        where=reference,
        nearest=nearest_name(reference, profile_names()),
        hint=_names_hint(),
    )


def _names_hint() -> str:
    return f"profiles here: {', '.join(profile_names()) or 'none'}; or give a path to a TOML file"


def load_profile(reference: str, overrides: Sequence[str] = ()) -> Profile:
    """Return the profile of a name or path, with `KEY=VALUE` overrides applied.

    Raises ProfileError, naming the file, the key, the value, what was expected and the nearest
    valid name.
    """
    path = find_profile(reference)
    try:
        data = tomllib.loads(read_regular(path, MAX_PROFILE_BYTES, follow_links=True))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not valid TOML: {error}", where=str(path)) from error
    except RecursionError as error:
        raise ProfileError("not valid TOML: nested too deep", where=str(path)) from error
    except (OSError, ValueError) as error:  # also of its encoding
        raise ProfileError(f"cannot be read: {error}", where=str(path)) from error
    for override in overrides:
        apply_override(data, override)
    for name in NOT_IN_A_FILE:
        if name in data:
            raise _unknown_key(name, data[name], (), str(path))
    data = with_accelerate_config(data, path.parent)
    asked = {"name": path.stem, "reference": reference, "overrides": list(overrides)}
    return build_profile({**data, **asked}, where=str(path))


def build_profile(data: Mapping[str, Any], *, where: str) -> Profile:
    """Return a validated profile from plain data; raises ProfileError with `where` in front."""
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        raise _profile_error(error, where) from error
    training = {
        name: check_setting(name, value, where=f"{where}: training.{name}")
        for name, value in profile.training.items()
    }
    blocks = tuple(
        _checked_block(profile, block, where=f"{where}: grid[{number}]")
        for number, block in enumerate(profile.grid, start=1)
    )
    return profile.model_copy(update={"training": training, "grid": blocks})


def _checked_block(profile: Profile, block: GridBlock, *, where: str) -> GridBlock:
    """Return a block with its values in the types of their settings.

    Raises ProfileError unless every axis is a known setting and is set in one place only.
    """
    checked: dict[str, tuple[Any, ...]] = {}
    for name, values in block.axes.items():
        place = f"{where}.{name}"
        if name in profile.training:
            raise ProfileError(
                "set twice",
                where=place,
                got=f"an axis here, and training.{name} = {profile.training[name]!r}",
                expected="one of the two",
            )
        if name not in type(block).model_fields:
            also = type(block).model_fields
            values = tuple(check_setting(name, v, where=place, also=also) for v in values)
            checked[name] = values
        if len(set(map(repr, values))) != len(values):
            raise ProfileError("the same value twice", where=place, got=repr(list(values)))
    return GridBlock.model_validate({**block.axes, **checked, **block.model_dump(include=_DESIGN)})


_DESIGN = {"design", "center"}


def _profile_error(error: ValidationError, where: str) -> ProfileError:
    """Return the most specific of pydantic's findings as a ProfileError."""
    findings = error.errors(include_url=False)
    finding = max(findings, key=lambda candidate: len(candidate["loc"]))
    location, kind, value = finding["loc"], finding["type"], finding["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), value, location[:-1], where)
    path = _key_path(location)
    # A union has one finding per member.
    messages = [other["msg"] for other in findings if _key_path(other["loc"]) == path]
    expected = dict.fromkeys(re.sub("^(Input should be|Value error,) ", "", m) for m in messages)
    valid = re.findall(r"'([^']+)'", str(finding.get("ctx", {}).get("expected")))  # a literal's
    return ProfileError(
        "missing" if kind == "missing" else "not usable",
        where=f"{where}: {path}" if path else where,
        # For these two kinds, the value is the whole table.
        got=None if kind in ("missing", "value_error") else f"{value!r} ({type(value).__name__})",
        expected=re.sub("[Tt]uple", "list", ", or ".join(expected)),  # TOML's word for it
        nearest=nearest_name(str(value), valid),
    )


def _unknown_key(
    name: str, value: object, location: tuple[int | str, ...], where: str
) -> ProfileError:
    """Return the error for a key that a table of the profile does not have."""
    valid = _fields_at(location)
    return ProfileError(
        "unknown key",
        where=f"{where}: {_key_path((*location, name))}",
        got=repr(value),
        expected=f"one of {', '.join(valid)}",
        nearest=nearest_name(name, valid),
    )


# pydantic's names of a union's members in the location of a finding: those of `Scalar`, `Name | tuple`, `Wanted`.
_UNION_MEMBERS = {
    "bool",
    "int",
    "float",
    "str",
    "constrained-str",
    "tuple[constrained-str, ...]",
    "tuple[union[bool,int,float,str], ...]",
    "union[bool,int,float,str]",
    "function-after[_says_something(), Condition]",
    Condition.__name__,
}


def _key_path(location: tuple[int | str, ...]) -> str:
    """Return a pydantic location as a key path, counted from 1: `grid[1].max_length[2]`."""
    parts = [
        f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in location if p not in _UNION_MEMBERS
    ]
    return "".join(parts).lstrip(".")


_TABLES: dict[int | str, type[BaseModel]] = {
    "workload": Workload,
    "run": Run,
    "grid": GridBlock,
    "lora": LoraSettings,
    "parallel": Parallel,
}


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a table of the profile may have."""
    if any(str(part).endswith(("Condition", "Condition]")) for part in location):
        return [field.alias or name for name, field in Condition.model_fields.items()]
    model = _TABLES[location[0]] if location else Profile
    return [name for name in model.model_fields if name not in NOT_IN_A_FILE]


def parse_value(text: str) -> Any:
    """Return a TOML value from the command line; a bare word is a string. Raises ProfileError."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        if not text or text[0] in "[{\"'":
            raise ProfileError(
                "not a TOML value", got=text, expected="a number, true, false, a word, or a list"
            ) from None
        return text


def parse_assignment(text: str, *, option: str) -> tuple[str, Any]:
    """Return (key, value) of `KEY=VALUE`; raises ProfileError that names the option."""
    key, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z_][\w.]*", key.strip()):
        raise ProfileError("not an assignment", where=option, got=text, expected="KEY=VALUE")
    try:
        return key.strip(), parse_value(value.strip())
    except ProfileError as error:
        raise error.at(f"{option} {key.strip()}") from None


def parse_selection(text: str, *, option: str) -> dict[str, Any]:
    """Return the axis values of a `KEY=VALUE,KEY=VALUE` selection of cells."""
    return dict(parse_assignment(part, option=option) for part in text.split(","))


def apply_override(data: dict[str, Any], text: str) -> None:
    """Set one dotted key in a profile's data; `grid.AXIS` replaces that axis in every block."""
    key, value = parse_assignment(text, option="--set")
    *tables, name = key.split(".")
    if tables == ["grid"]:
        blocks = data.get("grid")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise ProfileError("the profile has no [[grid]] block", where=f"--set {key}")
        if isinstance(data.get("training"), dict):
            data["training"].pop(name, None)  # the axis replaces the setting
        for block in blocks:
            block[name] = value if name == "design" or isinstance(value, (list, dict)) else [value]
        return
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise ProfileError("not a table", where=f"--set {key}", got=table)
    data[name] = value
