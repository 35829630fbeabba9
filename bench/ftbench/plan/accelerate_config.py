"""The YAML file that `accelerate config` writes, read as the parts of a profile that say the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftbench.base.errors import ProfileError
from ftbench.base.files import read_regular
from ftbench.base.units import MIB

KEY = "accelerate_config"
_MOST_BYTES = 1 * MIB
_PRECISIONS: Mapping[str, dict[str, Any]] = {
    "no": {},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
}
# The names that fields of `fsdp_config` have in a profile's table `parallel`, where they differ but for `fsdp_`.
_RENAMED = {
    "sharding_strategy": "reshard_after_forward",  # accelerate's name before 1.6
    "backward_prefetch_policy": "backward_prefetch",
}
# Without effect on a step's memory: how a checkpoint is read and written, and what is read from `fsdp_version`.
_IGNORED = ("version", "state_dict_type", "cpu_ram_efficient_loading")
_STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2")


def with_accelerate_config(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a profile's data in which `parallel.accelerate_config` is replaced by what that file says.

    Keys that the profile has itself win. A relative path is one from the profile's folder. Raises ProfileError for
    a file that cannot be read, and for what cannot be predicted, by its name.
    """
    parallel = data.get("parallel")
    if not isinstance(parallel, dict) or KEY not in parallel:
        return dict(data)
    path = folder / str(parallel[KEY])
    where = f"parallel.{KEY}: {path}"
    given = _read(path, where)
    own = {name: value for name, value in parallel.items() if name != KEY}
    precision = str(given.get("mixed_precision", "no")).lower()
    if precision not in _PRECISIONS:
        raise ProfileError("not predicted", where=f"{where}: mixed_precision", got=precision)
    read = {
        "num_processes": int(given.get("num_processes", 1)),
        **data,
        "parallel": {**_parallel(given, where), **own},
        "training": {**_PRECISIONS[precision], **data.get("training", {})},
    }
    if any("num_processes" in block for block in data.get("grid", [])):
        del read["num_processes"]
    return read


def _read(path: Path, where: str) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]  # 20 ms that most commands need not spend

    try:
        given = yaml.safe_load(read_regular(path, _MOST_BYTES, follow_links=True))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ProfileError(f"cannot be read: {error}", where=where) from error
    if not isinstance(given, dict):
        raise ProfileError(
            "not a file of `accelerate config`", where=where, got=type(given).__name__
        )
    return given


def _parallel(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the table `parallel` that a file's kind of distribution amounts to."""
    kind = str(given.get("distributed_type", "NO")).upper()
    if kind in ("NO", "MULTI_GPU"):
        return {"strategy": "ddp"}
    if kind != "FSDP":
        raise ProfileError(
            "this kind of distribution is not predicted",
            where=f"{where}: distributed_type",
            got=kind,
            expected="NO, MULTI_GPU or FSDP",
        )
    settings = {
        name.removeprefix("fsdp_"): value
        for name, value in (given.get("fsdp_config") or {}).items()
    }
    if settings.pop("offload_params", False) or settings.pop("cpu_offload", False):
        raise ProfileError(
            "parameters that are offloaded to the host are not predicted",
            where=f"{where}: fsdp_config.fsdp_offload_params",
            got="true",
        )
    version = int(settings.get("version", 1))
    return {
        "strategy": f"fsdp{version}",
        **{
            _RENAMED.get(name, name): _plain(name, value)
            for name, value in settings.items()
            if name not in _IGNORED and value is not None
        },
    }


def _plain(name: str, value: Any) -> Any:
    """Return a value as a profile has it: lists for texts with commas, strategies by their names."""
    if name == "transformer_layer_cls_to_wrap" and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if name == "sharding_strategy" and str(value).isdigit():  # counted from 1 in old files
        return _STRATEGIES[int(value) - 1].lower()
    if name in ("sharding_strategy", "reshard_after_forward") and isinstance(value, str):
        return value.lower()
    return value
