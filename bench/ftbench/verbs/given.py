"""Given: what callers give, checked; errors name the argument or the option."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, SupportsIndex, cast, get_args

from ftbench.base.errors import ProfileError, nearest_name

if TYPE_CHECKING:
    from ftbench.records.prediction import AttentionKernel

MOST_GPUS = 65_536


def names_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name, or several, as several."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def whole_of(name: str, value: SupportsIndex | None, most: int | None = None) -> int | None:
    """Return a whole number from 1 to `most`, or None; raises ProfileError for any other."""
    if value is None:
        return None
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1 or (most is not None and found > most):
        upto = "" if most is None else f" to {most:,}"
        raise ProfileError(
            "not a number that is possible",
            where=name,
            got=repr(value),
            expected=f"a whole number from 1{upto}",
        )
    return found


def gpus_numbers(given: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """Return numbers of GPUs; raises ProfileError for one that is no number of GPUs."""
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    found = (whole_of("gpus", one, MOST_GPUS) for one in several)
    return tuple(number for number in found if number is not None)


def price_texts(given: float | str | Sequence[float] | Mapping[str, float]) -> tuple[str, ...]:
    """Return prices as the command line has them: `0.71`, or `l4=0.71`."""
    if isinstance(given, Mapping):
        return tuple(f"{card}={price}" for card, price in given.items())
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(map(str, given))
    return (str(given),)


def attention_of(name: str | None, *, where: str = "--attention") -> AttentionKernel | None:
    """Return the attention kernel of this name; raises ProfileError if there is none."""
    from ftbench.records.prediction import AttentionKernel

    kernels = get_args(AttentionKernel)
    if name is None or name in kernels:
        return cast("AttentionKernel | None", name)
    raise ProfileError(
        "no such attention kernel",
        where=where,
        got=name,
        expected=f"one of {', '.join(kernels)}",
        nearest=nearest_name(name, kernels),
    )
