"""Refit: a fit that is known, corrected for another rank or another number of ranks by one trace.

Ranks differ in the sizes of their shards, and in a few tensors of which there is one per rank. The order of events
is that of the new trace. Its sizes are functions of batch and length with the terms that the known fit has for the
same tensor, so that one trace determines what takes five if the terms are unknown.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ftbench.prediction.shapes.fit import FitError, FittedTrace, Shape, terms_at
from ftbench.prediction.trace.events import Kind, Trace

# Where the allocations of a site are in the table of events, or the kernels of a kind in their list.
_Places = Mapping[Hashable, Sequence[int]]


def refit(fitted: FittedTrace, shape: Shape, trace: Trace) -> FittedTrace:
    """Return the fit of a workload that differs in ranks only from a fitted one, and of which one shape is traced.

    A tensor is the same in both if it is the n-th of its site, and the site has as many in both; others are taken
    for constants. The terms of each size stay, and what the trace contradicts gets another coefficient: a shard is
    another part of the same parameter. A size that is a sum of two terms must not change, since one trace does not
    say which of its terms does: FitError. As any fit, it is to be checked with a shape that it was not made from.
    """
    constant = len(fitted.coefficients)  # the row of what has no other in the fit: a row of zeros
    rows = np.full(len(trace), constant)
    for ours, theirs in _same(_allocations(trace), _allocations(fitted.template)):
        rows[ours] = fitted.row[theirs]
    row_of_block = np.full(int(trace.block.max(initial=0)) + 1, constant)
    allocated, freed = trace.kind == Kind.ALLOCATE, trace.kind == Kind.FREE
    row_of_block[trace.block[allocated]] = rows[allocated]
    rows[freed] = row_of_block[trace.block[freed]]
    kernel_rows = [[constant] * len(kernel.sizes) for kernel in trace.kernels]
    for ours, theirs in _same(_launches(trace), _launches(fitted.template)):
        kernel_rows[ours] = list(fitted.kernel_rows[theirs])
    ends = len(trace) + np.cumsum([0, *map(len, kernel_rows)])
    sizes = [*trace.nbytes.tolist(), *(one for kernel in trace.kernels for one in kernel.sizes)]
    every = [*rows.tolist(), *(row for of_kernel in kernel_rows for row in of_kernel)]
    pairs, row = np.unique(np.array([every, sizes], dtype=np.int64).T, axis=0, return_inverse=True)
    row = row.reshape(-1)
    return dataclasses.replace(
        fitted,
        template=trace,
        coefficients=_rescaled(fitted, pairs, shape),
        row=row[: len(trace)].astype(np.int32),
        kernel_rows=tuple(
            tuple(row[begin:end].tolist()) for begin, end in itertools.pairwise(ends)
        ),
    )


def _allocations(trace: Trace) -> _Places:
    """Return the rows of a trace's allocations by their sites, in order."""
    found: dict[Hashable, list[int]] = {}
    for event in np.flatnonzero(trace.kind == Kind.ALLOCATE).tolist():
        found.setdefault(trace.sites[trace.site[event]], []).append(event)
    return found


def _launches(trace: Trace) -> _Places:
    """Return the numbers of a trace's kernels by site, operator and all that decides a workspace but sizes."""
    found: dict[Hashable, list[int]] = {}
    for event in np.flatnonzero(trace.kind == Kind.KERNEL).tolist():
        number = int(trace.block[event])
        kernel = trace.kernels[number]
        alike = (kernel._replace(sizes=()), len(kernel.sizes))
        found.setdefault((trace.sites[trace.site[event]], alike), []).append(number)
    return found


def _same(ours: _Places, theirs: _Places) -> list[tuple[int, int]]:
    """Return the places that belong together: the n-th of ours and of theirs, if there are as many."""
    return [
        pair
        for name, places in ours.items()
        if len(theirs.get(name, ())) == len(places)
        for pair in zip(places, theirs[name], strict=True)
    ]


def _rescaled(fitted: FittedTrace, pairs: NDArray[np.int64], shape: Shape) -> NDArray[np.float64]:
    """Return coefficients for each pair of a row of a fit, and the size that it has now at this shape.

    What was empty in the fit, or not in it, becomes a constant: the first term.
    """
    terms = terms_at(*shape, one_row=fitted.one_row)
    known = np.vstack([fitted.coefficients, np.zeros_like(terms)])
    coefficients, sizes = known[pairs[:, 0]], pairs[:, 1]
    changed = np.flatnonzero(np.rint(coefficients @ terms) != sizes)
    used = coefficients[changed] != 0
    column = used.argmax(axis=1)
    whole = sizes[changed] % terms[column] == 0
    if (used.sum(axis=1) > 1).any() or not whole.all():
        raise FitError("the terms of a size depend on the number of ranks", got=str(shape))
    coefficients[changed] = 0
    coefficients[changed, column] = sizes[changed] / terms[column]
    return coefficients
