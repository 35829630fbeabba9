"""The arguments by which transformers finds the revision of a source."""

from __future__ import annotations

from ftbench.plan.sources import Source
from ftbench.worker.recipe.gguf import converted, is_gguf


def location_of(source: Source) -> str:
    """Return the argument of `from_pretrained`: a hub id or a directory, for a GGUF file that of its conversion."""
    return str(converted(source)) if is_gguf(source) else source.location


def revision_of(source: Source) -> dict[str, str]:
    """Return the argument `revision` of `from_pretrained`: a commit on the hub; nothing for files."""
    return {"revision": source.revision} if source.kind == "hub" else {}
