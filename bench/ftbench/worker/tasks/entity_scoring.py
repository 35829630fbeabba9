"""Entities in sequences of tags, and their F1 as the library seqeval defines it. Pure.

A tag is O, or a prefix and a type: B-PER begins an entity of the type PER, I-PER goes on, E-PER ends one, S-PER is
one by itself. As in the script `conlleval` of the CoNLL-2000 shared task, which seqeval follows, an entity also
begins where a tag goes on with another type, or after O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ftbench.records.scores import Score
from ftbench.worker.tasks.protocol import Array
from ftbench.worker.tasks.scoring import score

# The type of an entity, and its first and last place.
Entity = tuple[str, int, int]
_OUTSIDE = "O"
_PREFIXES = frozenset("BIES")


def has_entities(names: Sequence[str]) -> bool:
    """Return whether tags are those of entities: each is O, or a prefix and a type."""
    marked = [name for name in names if name != _OUTSIDE]
    return bool(marked) and all(
        name[:1] in _PREFIXES and name[1:2] == "-" and len(name) > 2 for name in marked
    )


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities of one sequence of tags."""
    found: set[Entity] = set()
    kind, start = "", 0
    before = _OUTSIDE
    for place, tag in enumerate([*tags, _OUTSIDE]):
        prefix, _, of = tag.partition("-")
        goes_on = kind and of == kind and prefix in ("I", "E") and before not in ("E", "S")
        if kind and not goes_on:
            found.add((kind, start, place - 1))
            kind = ""
        if prefix != _OUTSIDE and not kind:
            kind, start = of, place
        before = prefix
    return found


def f1(references: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], guess: str) -> Score:
    """Return 2 TP / (2 TP + FP + FN) over all entities, and that of the tag `guess` throughout.

    0 if there is none. The error is that of a ratio of two sums over examples (Cochran, "Sampling Techniques",
    1977, section 2.11).
    """
    counts = np.array([_counts(*pair) for pair in zip(references, answers, strict=True)], float)
    guessed = np.array([_counts(tags, [guess] * len(tags)) for tags in references], float)
    value = _ratio(counts)
    examples, total = len(counts), counts[:, 1].sum()
    error = None
    if examples > 1 and total:
        residuals = 2 * counts[:, 0] - value * counts[:, 1]
        variance = float((residuals**2).sum()) * examples / (examples - 1) / total**2
        error = math.sqrt(variance)
    return score("f1_entities", value, error, guess=_ratio(guessed))


def _counts(wanted: Sequence[str], answered: Sequence[str]) -> tuple[int, int]:
    """Return the number of right entities, and that of wanted and of answered ones together."""
    right, given = entities(wanted), entities(answered)
    return len(right & given), len(right) + len(given)


def _ratio(counts: Array) -> float:
    right, total = counts.sum(axis=0)
    return float(2 * right / total) if total else 0.0
