"""Regions: the ranges of addresses that a process has memory at."""

from __future__ import annotations

from bisect import bisect_right


class Regions:
    """Ranges of addresses, disjoint and in order; those of expandable segments grow together if they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.nbytes = 0

    def end_at(self, address: int) -> int | None:
        """Return the end of the range that an address is in; None if it is in none."""
        place = bisect_right(self._starts, address) - 1
        if place < 0 or self._ends[place] <= address:
            return None
        return self._ends[place]

    def add(self, start: int, nbytes: int, *, joins: bool) -> None:
        """Add a range; one that `joins` becomes one with those that it touches."""
        if nbytes <= 0 or self.end_at(start) is not None:
            return
        place, end = bisect_right(self._starts, start), start + nbytes
        if place < len(self._starts):
            end = min(end, self._starts[place])
        self.nbytes += end - start
        if joins and place < len(self._starts) and self._starts[place] == end:
            end = self._ends.pop(place)
            del self._starts[place]
        if joins and place and self._ends[place - 1] == start:
            self._ends[place - 1] = end
            return
        self._starts.insert(place, start)
        self._ends.insert(place, end)

    def remove(self, start: int, nbytes: int) -> None:
        """Remove a range, as far as it is there; what is left on both sides of it stays."""
        end = start + nbytes
        place = max(bisect_right(self._starts, start) - 1, 0)
        while place < len(self._starts) and self._starts[place] < end:
            first, last = self._starts[place], self._ends[place]
            if last <= start:
                place += 1
                continue
            del self._starts[place], self._ends[place]
            self.nbytes -= min(last, end) - max(first, start)
            for left, right in ((first, start), (end, last)):
                if left < right:
                    self._starts.insert(place, left)
                    self._ends.insert(place, right)
                    place += 1
