"""Sequence lengths: the properties of a data set that memory depends on, its labels and the lengths of batches."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import datasets

from ftbench.plan.cell import Cell
from ftbench.worker.data.pools import load_pools, require_sizes
from ftbench.worker.recipe.tokenizer import load_tokenizer
from ftbench.worker.tasks.tasks import task_of
from ftbench.worker.tasks.text import lengths as encoded_lengths

# Enough examples to see whether any is short, and how lengths are distributed.
SAMPLE = 2000
# The number of random orders of lengths in which a cell with varying batches is simulated.
ORDERS = 8
# Lengths in an order are rounded up to a multiple of this: otherwise masks are padded, and the steps differ.
ROUNDED_TO = 8


@dataclasses.dataclass(frozen=True)
class SequenceLengths:
    """The names of the labels, and the lengths of training examples in tokens; no lengths if unknown.

    Lengths are truncated at the `max_length` of the longest cell. `complete` means that they are those of all
    training examples, and no evaluation example is longer; else they are a sample, and the longest and the
    shortest are unknown.
    """

    labels: tuple[str, ...] = ("0", "1")
    lengths: tuple[int, ...] = ()
    complete: bool = True

    def padded(self, max_length: int) -> bool:
        """Return whether a batch of this length can contain padding."""
        return not (self.lengths and self.complete) or min(self.lengths) < max_length

    def longest(self, max_length: int, train_size: int | None = None) -> int:
        """Return the length of the longest batch, at most `max_length`."""
        if not self.complete:
            return max_length
        return min(max_length, max(self.lengths[:train_size], default=max_length))

    def mean(self, max_length: int) -> int:
        """Return the mean length of examples truncated at `max_length`, rounded down; 8 if unknown."""
        cut = [min(length, max_length) for length in self.lengths] or [ROUNDED_TO]
        rounded = sum(cut) // len(cut) // ROUNDED_TO * ROUNDED_TO
        return min(max(rounded, ROUNDED_TO), max_length)

    def orders(self, batch: int, max_length: int, steps: int) -> list[tuple[int, ...]]:
        """Return several orders of the lengths of successive batches, drawn at random with a fixed seed.

        In the first order all batches have the largest length; the others are drawn from `lengths`, if known.
        """
        longest = self.longest(max_length)
        found = {(longest,) * steps: None}
        if self.lengths:
            drawn = random.Random(0)
            for _ in range(ORDERS):
                order = [max(drawn.choices(self.lengths, k=batch)) for _ in range(steps)]
                rounded = (-(-min(length, longest) // ROUNDED_TO) * ROUNDED_TO for length in order)
                found[tuple(min(length, longest) for length in rounded)] = None
        return list(found)

    def orders_in_one_row(self, batch: int, max_length: int, steps: int) -> list[tuple[float, ...]]:
        """Return several orders of the mean lengths of examples in successive batches that are one row each.

        As `orders`, but a row is as long as all of its examples together.
        """
        longest = self.longest(max_length)
        found: dict[tuple[float, ...], None] = {(longest,) * steps: None}
        cut = [min(length, longest) for length in self.lengths]
        drawn = random.Random(0)
        for _ in range(ORDERS if cut else 0):
            sums = [sum(drawn.choices(cut, k=batch)) for _ in range(steps)]
            rounded = (-(-length // ROUNDED_TO) * ROUNDED_TO for length in sums)
            found[tuple(min(length / batch, longest) for length in rounded)] = None
        return list(found)


def read_lengths(cells: Sequence[Cell], *, hypothetical: bool = False) -> SequenceLengths:
    """Return the sequence lengths of the cells' data.

    Raises WorkloadError if the data cannot be read; or if it has fewer examples than the cells ask for, unless they
    are `hypothetical`.
    """
    datasets.disable_progress_bars()
    pools = load_pools(cells[0].data)
    if not hypothetical:
        require_sizes(cells, pools)
    task, tokenizer = task_of(cells[0].data), load_tokenizer(cells[0].model)
    longest = max(cell.max_length for cell in cells)
    trained = max(cell.train_size for cell in cells)
    evaluated = cells[0].data.eval_size

    def lengths(pool: datasets.Dataset, count: int) -> list[int]:
        sample = pool.select(range(min(count, SAMPLE, len(pool))))[:]
        return encoded_lengths(task.encode(tokenizer, sample, max_length=longest, pad=False))

    train, evaluation = lengths(pools.train, trained), lengths(pools.evaluation, evaluated)
    complete = max(trained, evaluated) <= SAMPLE and max(evaluation) <= max(train)
    return SequenceLengths(pools.labels, tuple(train), complete)
