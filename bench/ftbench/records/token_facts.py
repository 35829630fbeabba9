"""Token facts: how long the texts of a data set are, and what a sequence length makes of them. Plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ftbench.base.frozen import FrozenModel

# The lengths that are told of any data set.
USUAL_LENGTHS = (32, 64, 128, 256, 512)


class LengthFacts(FrozenModel):
    """What a sequence length makes of texts: the share of texts that it cuts, and the share of tokens that pad.

    Padding is that of texts which are all filled up to the length.
    """

    max_length: int
    cut: float
    padding: float


class TokenFacts(FrozenModel):
    """Tokens per text, with special tokens: of `texts` texts, which are all of `of` texts or drawn at random."""

    texts: int
    of: int
    median: int
    p95: int
    longest: int
    by_length: tuple[LengthFacts, ...]


def token_facts(lengths: Sequence[int], at: Iterable[int], *, of: int) -> TokenFacts:
    """Return the facts about texts with these lengths in tokens (at least one), for some sequence lengths.

    The quantiles are lengths that occur: the smallest that as many texts do not exceed.
    """
    ordered = sorted(lengths)
    return TokenFacts(
        texts=len(ordered),
        of=of,
        median=_quantile(ordered, 0.5),
        p95=_quantile(ordered, 0.95),
        longest=ordered[-1],
        by_length=tuple(_of_length(ordered, length) for length in sorted(set(at))),
    )


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _of_length(lengths: Sequence[int], max_length: int) -> LengthFacts:
    kept = sum(min(length, max_length) for length in lengths)
    return LengthFacts(
        max_length=max_length,
        cut=sum(length > max_length for length in lengths) / len(lengths),
        padding=1 - kept / (len(lengths) * max_length),
    )
