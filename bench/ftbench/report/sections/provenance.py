"""Provenance: hardware and packages of a report's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftbench.base.units import counted, format_bytes, format_seconds
from ftbench.records.environment import Environment
from ftbench.records.record import Record
from ftbench.report.elements.table import Table


def environment_section(
    records: Sequence[Record], environments: Mapping[str, Environment]
) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables): the machines; and the packages by environment."""
    used = {record.environment_id for record in records}
    there = {name: one for name, one in environments.items() if name in used}
    seconds = sum(record.wall_s for record in records)
    notes = (
        *(_machine(name, environment) for name, environment in there.items()),
        f"{counted(len(records), 'run')} took {format_seconds(seconds)} altogether.",
    )
    return notes, ((_packages(there),) if there else ())


def _machine(name: str, environment: Environment) -> str:
    device = environment.device
    variables = "".join(f"; {name}={value}" for name, value in environment.variables.items())
    card = f"; {device.name}, driver {environment.driver}" if device.kind == "cuda" else ""
    return (
        f"Environment `{name}`: {environment.cpu}, {counted(environment.cores, 'core')},"
        f" {format_bytes(environment.memory_bytes)}{card}; {environment.platform};"
        f" Python {environment.python}; commit {environment.git_commit or 'unknown'}{variables}."
    )


def _packages(environments: Mapping[str, Environment]) -> Table:
    """Return the version of every package, one column per environment."""
    names = sorted({package for one in environments.values() for package in one.packages})
    rows = tuple(
        (name, *(one.packages.get(name, "–") for one in environments.values()))  # noqa: RUF001
        for name in names
    )
    heads = ("package", *(environments if len(environments) > 1 else ["version"]))
    return Table("Packages", heads, rows, (False,) * len(heads), folded=True)
