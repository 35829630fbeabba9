"""From a profile to its grid, for all commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbench.base.errors import HubUnreachable
from ftbench.plan.grid import Grid, expand
from ftbench.plan.profile import Profile
from ftbench.plan.sources import DataSource, ModelSource, Source, resolve_data, resolve_model


def resolve(profile: Profile) -> Grid:
    """Return the whole grid of a profile, each cell named by the content of its model and data.

    Raises WorkloadError if one of them is missing, HubUnreachable if the hub cannot be asked for a revision.
    """
    return expand(profile, resolve_model(profile.workload), resolve_data(profile.workload))


def plan_grid(profile: Profile, selection: Mapping[str, Any]) -> tuple[Grid, HubUnreachable | None]:
    """Return the grid, and None; or, if the hub cannot be reached, a grid without ids and the error."""
    try:
        return resolve(profile).only(selection), None
    except HubUnreachable as error:
        return expand(profile, *_unresolved(profile)).only(selection), error


def cell_count(profile: Profile) -> int:
    """Return the number of cells of a profile; neither its model nor its data need be there."""
    return len(expand(profile, *_unresolved(profile)).cells)


def _unresolved(profile: Profile) -> tuple[ModelSource, DataSource]:
    """Return sources without a revision, sufficient for counting cells."""
    workload = profile.workload

    def source(reference: str) -> Source:
        return Source(reference=reference, kind="hub", location=reference, revision="unresolved")

    model = ModelSource(
        source=source(workload.model), tokenizer=source(workload.model), weights=workload.weights
    )
    fields = workload.model_dump(include=set(DataSource.model_fields) - {"where", "config"})
    return model, DataSource(source=source(workload.dataset), **fields)
