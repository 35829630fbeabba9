"""The first grid of a data set: lengths that its texts ask for, as many cells as end within a time.

The time of a cell is that of its schedule (optimizer steps, evaluations, checkpoints), with the seconds that a step
and a forward pass took on this device.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from ftbench.plan.cell import Cell
from ftbench.plan.schedule import schedule_of
from ftbench.records.first_look import StepTime, TextFacts

# The batch that is timed, and the one beside it.
BATCH = 8
_BATCHES = (BATCH, 2 * BATCH)
# The training examples of the cells that show cost, and most evaluation examples.
_COST_SIZE, _MOST_EVALUATED = 64, 100
_MOST_LENGTHS, _MOST_SIZES = 3, 4
# A length that cuts no more texts than this is long enough; the curve of accuracy is at one that cuts few.
_ENOUGH, _FEW_CUT = 0.05, 0.2
# A length that cuts more texts than this shows little, unless there is no other one beside the longest.
_TOO_MANY_CUT = 0.5
# The longest time to be expected, over the likeliest: a shared device may be slower than when it was timed.
SLOWEST = 1.5
# Once per run: the preparation (FLOPs, tokens, the matrix peak). Once per cell: a forked process, and its end.
# Assumptions, as is the rate of a disk.
_PREPARE_S, _CELL_S, _DISK_BYTES_PER_S = 20.0, 4.0, 500e6
# Weights in float32; a checkpoint has two more of each for AdamW.
_WEIGHT_BYTES, _COPIES = 4, 3


@dataclasses.dataclass(frozen=True)
class FirstGrid:
    """A block that shows cost (lengths by batches), and one that shows accuracy by the training examples.

    `sizes` is empty if there are too few examples, or no time, for the second block, which is at `curve_length` and
    the first batch.
    """

    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    cost_size: int
    sizes: tuple[int, ...]
    curve_length: int
    eval_size: int

    def blocks(self) -> list[dict[str, list[int]]]:
        """Return the blocks as a profile has them."""
        cost = (list(self.lengths), list(self.batches), [self.cost_size])
        curve = ([self.curve_length], [self.batches[0]], list(self.sizes))
        names = ("max_length", "per_device_train_batch_size", "train_size")
        return [
            dict(zip(names, block, strict=True)) for block in ((cost, curve) if self.sizes else (cost,))
        ]  # fmt: skip


def grids(facts: TextFacts) -> Iterator[FirstGrid]:
    """Yield grids for a data set, each smaller than the one before; at least one."""
    lengths = _lengths(facts)
    batches = tuple(batch for batch in _BATCHES if batch <= facts.train_pool) or (1,)
    cost_size = min(_COST_SIZE, facts.train_pool)
    sizes = _sizes(facts.train_pool, cost_size)
    evaluated = min(_MOST_EVALUATED, facts.eval_pool)
    whole = FirstGrid(lengths, batches, cost_size, sizes, _curve_length(facts, lengths), evaluated)
    yield whole
    yield from _smaller(whole)


def _smaller(whole: FirstGrid) -> Iterator[FirstGrid]:
    """Yield what is left of a grid: fewer training examples, one batch, fewer lengths, half of all."""
    grid = whole
    while len(grid.sizes) > 1:
        grid = dataclasses.replace(grid, sizes=grid.sizes[:-1])
        yield grid
    if len(grid.batches) > 1:
        grid = dataclasses.replace(grid, batches=grid.batches[:1])
        yield grid
    while len(grid.lengths) > 1:
        lengths = grid.lengths[:-1]
        grid = dataclasses.replace(
            grid, lengths=lengths, curve_length=min(grid.curve_length, lengths[-1])
        )
        yield grid
    grid = dataclasses.replace(grid, sizes=())
    yield grid
    while grid.cost_size > 2 * grid.batches[0] and grid.eval_size > 1:
        half = (grid.cost_size // 2, max(1, grid.eval_size // 2))
        grid = dataclasses.replace(grid, cost_size=half[0], eval_size=half[1])
        yield grid


def _lengths(facts: TextFacts) -> tuple[int, ...]:
    """Return the timed lengths up to the first that cuts few texts, at most three; the least if none was timed."""
    cut, timed = _cut(facts), [time.max_length for time in facts.times]
    if not timed:
        return (min(cut),)
    enough = next((n for n in timed if cut[n] <= _ENOUGH), timed[-1])
    asked = [n for n in timed if n <= enough]
    useful = [n for n in asked if cut[n] <= _TOO_MANY_CUT]
    return tuple(useful if len(useful) > 1 else asked[-2:])[-_MOST_LENGTHS:]


def _cut(facts: TextFacts) -> dict[int, float]:
    """Return the share of texts that each length cuts."""
    return {one.max_length: one.cut for one in facts.tokens.by_length}


def _curve_length(facts: TextFacts, lengths: Sequence[int]) -> int:
    """Return the shortest of the lengths that cuts few texts, else the longest."""
    cut = _cut(facts)
    return next((n for n in lengths if cut[n] <= _FEW_CUT), lengths[-1])


def _sizes(pool: int, cost_size: int) -> tuple[int, ...]:
    """Return numbers of training examples, each twice the one before, from twice the smallest."""
    doubled = itertools.takewhile(
        lambda n: n <= pool, (cost_size * 2**power for power in itertools.count(1))
    )
    return tuple(itertools.islice(doubled, _MOST_SIZES))


def seconds_of(cells: Sequence[Cell], facts: TextFacts) -> float | None:
    """Return the seconds that cells take one after another; None if a length of theirs was not timed."""
    times = {time.max_length: time for time in facts.times}
    if any(cell.max_length not in times for cell in cells):
        return None
    return _PREPARE_S + sum(_cell_seconds(cell, times[cell.max_length], facts) for cell in cells)


def _cell_seconds(cell: Cell, time: StepTime, facts: TextFacts) -> float:
    job = schedule_of(cell)
    steps = job.steps * time.step_s * cell.per_device_train_batch_size / facts.batch
    evaluated = job.evaluations * job.eval_documents * time.forward_s / facts.batch
    saved = (job.checkpoints * _COPIES + 1) * facts.parameters * _WEIGHT_BYTES
    return steps + evaluated + saved / _DISK_BYTES_PER_S + facts.load_s + _CELL_S
