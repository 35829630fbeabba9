"""Documents: what a workload's data decide of its memory: how many labels, and how long batches are."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import datasets

from bench.grid import Cell
from bench.worker.data import load_pools
from bench.worker.model import load_tokenizer

# Enough to see whether any is short, and how lengths are spread.
SAMPLE = 2000
# Orders of lengths that a cell with varying batches is simulated in.
ORDERS = 8
# Lengths in an order are rounded up to this: at others masks are padded, and the steps differ.
ROUNDED_TO = 8


@dataclasses.dataclass(frozen=True)
class Documents:
    """The labels' names, and the tokens of each of the first training documents; none where unknown."""

    labels: tuple[str, ...] = ("0", "1")
    lengths: tuple[int, ...] = ()

    def padded(self, max_length: int) -> bool:
        """Return whether a batch of this length can have padding in it."""
        return not self.lengths or min(self.lengths) < max_length

    def longest(self, max_length: int) -> int:
        """Return the length of the longest batch, at most `max_length`."""
        return min(max_length, max(self.lengths, default=max_length))

    def orders(self, batch: int, max_length: int, steps: int) -> list[tuple[int, ...]]:
        """Return the lengths of successive batches, as draws of documents make them; seeded.

        The first has the longest throughout; the others come from the documents, if there are any.
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


def read_documents(cells: Sequence[Cell]) -> Documents:
    """Return what the data of a profile's cells say; raises WorkloadError where they can't be read."""
    datasets.disable_progress_bars()
    pools = load_pools(cells[0].data)
    tokenizer = load_tokenizer(cells[0].model)
    count = min(SAMPLE, len(pools.train), max(cell.train_size for cell in cells))
    longest = max(cell.max_length for cell in cells)
    texts = pools.train.select(range(count))["text"]
    encoded = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    return Documents(pools.labels, tuple(map(len, encoded)))
