"""Older versions of torch: what is known to differ in memory from the one that traces.

    version         what it does                                                   source
    before 1.11     softmax and log_softmax keep their input for the backward      pytorch/pytorch#65242
                    pass, beside their result
    2.6 to 2.8      cuBLASLt has a workspace of 1 MiB for each call                simulate/workspaces/cublas.py
    2.9 to 2.11     cuBLASLt has a workspace of 1 MiB for each thread, which stays  simulate/workspaces/cublas.py

Nothing else is known. Of cuBLAS's workspaces before 2.6, and of other operators, all is taken to be as now.
"""

from __future__ import annotations

from collections.abc import Mapping

from ftbench.prediction.simulate.cards import installed_torch
from ftbench.prediction.simulate.workspaces.allocator_steps import Version
from ftbench.prediction.trace.older_torch import INPUT_KEPT_BEFORE

# The versions whose workspaces `simulate.workspaces` knows.
_WORKSPACES = (2, 6)
_FACTS: Mapping[tuple[Version, Version], str] = {
    ((0, 0), INPUT_KEPT_BEFORE): "softmax and log_softmax keep their input for the backward pass"
    " (pytorch/pytorch#65242 ended that in 1.11)",
    (_WORKSPACES, (2, 9)): "cuBLASLt has a workspace of its own in each call"
    " (pytorch/pytorch#156495 ended that in 2.9)",
    ((2, 9), (2, 12)): "cuBLASLt has a workspace of its own, which stays"
    " (pytorch/pytorch#175879 ended that in 2.12)",
}


def version_note(assumed: Version | None) -> tuple[str, ...]:
    """Return what figures for an assumed version of torch are worth; nothing if none is assumed."""
    if assumed is None:
        return ()
    name, own = ".".join(map(str, assumed)), ".".join(map(str, installed_torch()))
    facts = [fact for (first, end), fact in _FACTS.items() if first <= assumed < end]
    if assumed == installed_torch():
        return (f"torch {name} is the one that traced",)
    if not facts:
        return (f"of torch {name} nothing is known that moves memory: figures are those of {own}",)
    return (
        f"corrected for torch {name}: {'; '.join(facts)}; all else is as in {own}, which traced",
    )


def version_of_workspaces(assumed: Version | None) -> Version:
    """Return the version whose workspaces are simulated: an assumed one, if they are known."""
    if assumed is None or not _WORKSPACES <= assumed <= installed_torch():
        return installed_torch()
    return assumed
