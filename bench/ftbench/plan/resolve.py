"""From a profile to its grid: the one way for all commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbench.base.errors import HubUnreachable
from ftbench.plan.grid import Grid, expand
from ftbench.plan.profile import Profile
from ftbench.plan.sources import DataSource, ModelSource, Source, resolve_data, resolve_model


def plan_grid(profile: Profile, selection: Mapping[str, Any]) -> tuple[Grid, HubUnreachable | None]:
    """Return the grid, and why its cells have no id where the hub could not be asked for a revision."""
    try:
        model, data = resolve_model(profile.workload), resolve_data(profile.workload)
    except HubUnreachable as error:
        return expand(profile, *_unresolved(profile)).only(selection), error
    return expand(profile, model, data).only(selection), None


def _unresolved(profile: Profile) -> tuple[ModelSource, DataSource]:
    """Return sources without a revision, good for counting cells only."""
    workload = profile.workload

    def source(reference: str) -> Source:
        return Source(reference=reference, kind="hub", location=reference, revision="unresolved")

    model = ModelSource(
        source=source(workload.model), tokenizer=source(workload.model), weights=workload.weights
    )
    fields = workload.model_dump(include=set(DataSource.model_fields) - {"where", "config"})
    return model, DataSource(source=source(workload.dataset), **fields)
