"""Benchmarks: the peaks of memory that pytest-benchmark's JSON carries, as `gpu_memory` puts them there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline import MAX_FIGURE_BYTES
from ftbench.gating.json_file import read_json_file
from ftbench.gating.peaks import Peaks

PEAK = "gpu_memory_peak_bytes"  # in a benchmark's extra_info
VERSIONS = "gpu_memory_versions"
_NAMED = 3  # of the names that a message has
MAX_BYTES = 256 * 2**20  # with every round's time a real file has tens of MiB


def read_peaks(file: Path) -> Peaks:
    """Return the peaks in a file; raises BaselineError if it has none, or is not such a file."""
    try:
        data = read_json_file(file, MAX_BYTES)
        there = [one for one in data["benchmarks"] if PEAK in one["extra_info"]]
        found = {str(one["fullname"]): one["extra_info"][PEAK] for one in there}
        twice = [
            name for name, count in Counter(str(o["fullname"]) for o in there).items() if count > 1
        ]
        versions = [one["extra_info"].get(VERSIONS, {}) for one in there]
    except OSError as error:
        raise BaselineError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaselineError(
            "not a file that `pytest --benchmark-json` wrote", where=str(file), got=str(error)
        ) from error
    if twice:
        raise BaselineError(
            "two benchmarks of one name",
            where=str(file),
            got=", ".join(twice[:_NAMED]),
            hint="compare files of one test run each",
        )
    wrong = [
        name
        for name, peak in found.items()
        if type(peak) is not int or not 0 <= peak <= MAX_FIGURE_BYTES
    ]
    if wrong:
        raise BaselineError("a peak that is not a number of bytes", where=str(file), got=wrong[0])
    if not found:
        raise BaselineError(
            "no benchmark has a peak of memory",
            where=str(file),
            hint="use the fixtures `benchmark` and `gpu_memory` in one test",
        )
    together = {name: version for one in versions for name, version in one.items()}
    if any(one[name] != together[name] for one in versions for name in one):
        raise BaselineError(
            "benchmarks of several versions of one library", where=str(file), got=str(versions)
        )
    return Peaks(found, together)
