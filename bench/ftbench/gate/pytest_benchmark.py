"""Benchmarks: the peaks of memory that pytest-benchmark's JSON carries, as `gpu_memory` puts them there."""

from __future__ import annotations

import json
from pathlib import Path

from ftbench.base.errors import BaselineError
from ftbench.gate.peaks import Peaks

PEAK = "gpu_memory_peak_bytes"  # in a benchmark's extra_info
VERSIONS = "gpu_memory_versions"
MAX_BYTES = 256 * 2**20  # with every round's time a real file has tens of MiB


def read_peaks(file: Path) -> Peaks:
    """Return the peaks in a file; raises BaselineError if it has none, or is not such a file."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BaselineError("too large", where=str(file))
        data = json.loads(file.read_text(encoding="utf-8"))
        there = [one for one in data["benchmarks"] if PEAK in one["extra_info"]]
        found = {str(one["fullname"]): one["extra_info"][PEAK] for one in there}
        versions: dict[str, str] = {}
        for one in there:
            versions |= one["extra_info"].get(VERSIONS, {})
    except OSError as error:
        raise BaselineError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaselineError(
            "not a file that `pytest --benchmark-json` wrote", where=str(file), got=str(error)
        ) from error
    wrong = [name for name, peak in found.items() if type(peak) is not int or peak < 0]
    if wrong:
        raise BaselineError("a peak that is not a number of bytes", where=str(file), got=wrong[0])
    if not found:
        raise BaselineError(
            "no benchmark has a peak of memory",
            where=str(file),
            hint="use the fixtures `benchmark` and `gpu_memory` in one test",
        )
    return Peaks(found, versions)
