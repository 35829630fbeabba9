"""The arguments by which transformers finds the revision of a source."""

from __future__ import annotations

from ftbench.plan.sources import Source


def revision_of(source: Source) -> dict[str, str]:
    """Return the argument `revision` of `from_pretrained`: a commit on the hub; nothing for files."""
    return {"revision": source.revision} if source.kind == "hub" else {}
