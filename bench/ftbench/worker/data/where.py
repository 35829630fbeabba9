"""Conditions of `where`: the rows whose values are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ftbench.base.errors import WorkloadError
from ftbench.base.frozen import Scalar
from ftbench.plan.profile import Condition, Wanted


def wanted_rows(values: pa.ChunkedArray, column: str, wanted: Wanted) -> pa.ChunkedArray:
    """Return a mask of the values that are wanted; a missing value is so only by `not`.

    Raises WorkloadError for a value of another type than the column's.
    """
    if not isinstance(wanted, Condition):
        return _any_of(values, column, wanted if isinstance(wanted, tuple) else (wanted,))
    mask = pa.chunked_array([pa.repeat(pa.scalar(True), len(values))])
    if wanted.not_ is not None:
        unwanted = wanted.not_ if isinstance(wanted.not_, tuple) else (wanted.not_,)
        mask = pc.and_(mask, pc.invert(_any_of(values, column, unwanted)))
    for end, compare in ((wanted.from_, pc.greater_equal), (wanted.to, pc.less_equal)):
        if end is not None:
            mask = pc.and_(mask, _compared(compare, values, column, end))
    return mask


def _any_of(values: pa.ChunkedArray, column: str, wanted: tuple[Scalar, ...]) -> pa.ChunkedArray:
    masks = [_compared(pc.equal, values, column, value) for value in wanted]
    mask = masks[0]
    for other in masks[1:]:
        mask = pc.or_(mask, other)
    return mask


def _compared(
    compare: Callable[..., Any], values: pa.ChunkedArray, column: str, wanted: Scalar
) -> pa.ChunkedArray:
    """Return a mask of the values for which a comparison holds; it never does for a missing one."""
    try:
        return pc.fill_null(compare(values, pa.scalar(wanted)), False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OverflowError) as error:
        raise WorkloadError(
            f"{column} cannot be compared with {wanted!r}",
            where="workload.where",
            got=type(wanted).__name__,
            expected=str(values.type),
        ) from error
