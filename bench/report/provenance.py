"""Provenance: workload, hardware and packages of a report's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.messages import Preparation
from bench.record import Environment, Record
from bench.report.tables import Table
from bench.units import format_bytes, format_seconds


def environment_section(
    records: Sequence[Record],
    environments: Mapping[str, Environment],
    preparation: Preparation,
) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables): model, data, machine; and the packages by environment."""
    used = {record.environment_id for record in records}
    there = {name: one for name, one in environments.items() if name in used}
    seconds = sum(record.wall_s for record in records)
    notes = (
        *_workload(records, preparation),
        *(_machine(name, environment) for name, environment in there.items()),
        f"{len(records)} runs took {format_seconds(seconds)} altogether.",
    )
    return notes, ((_packages(there),) if there else ())


def _workload(records: Sequence[Record], preparation: Preparation) -> tuple[str, str]:
    cell = records[0].cell
    return (
        f"Model: {cell.model.source.reference} ({preparation.parameters / 1e6:.2f} M parameters,"
        f" {cell.model.weights} weights), revision `{cell.model.source.revision}`.",
        f"Data: {cell.data.source.reference} (pools of {preparation.train_pool} and"
        f" {preparation.eval_pool} documents), revision `{cell.data.source.revision}`.",
    )


def _machine(name: str, environment: Environment) -> str:
    device = environment.device
    card = f"; {device.name}, driver {environment.driver}" if device.kind == "cuda" else ""
    return (
        f"Environment `{name}`: {environment.cpu}, {environment.cores} cores,"
        f" {format_bytes(environment.memory_bytes)}{card}; {environment.platform};"
        f" Python {environment.python}; commit {environment.git_commit or 'unknown'}."
    )


def _packages(environments: Mapping[str, Environment]) -> Table:
    """Return the version of every package, a column an environment."""
    names = sorted({package for one in environments.values() for package in one.packages})
    rows = tuple(
        (name, *(one.packages.get(name, "–") for one in environments.values()))  # noqa: RUF001
        for name in names
    )
    heads = ("package", *(environments if len(environments) > 1 else ["version"]))
    return Table("Packages", heads, rows, (False,) * len(heads), folded=True)
