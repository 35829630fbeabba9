"""The C library's treatment of freed memory, the axis `malloc`.

glibc returns every block above a threshold to the kernel when it is freed (M_MMAP_THRESHOLD: it
adapts, up to 32 MiB), and the end of the heap if it is free (M_TRIM_THRESHOLD). A training step
frees most of its memory, so the kernel zeroes the same pages again in each step: page by page, in
page faults. `keep` takes all blocks from the heap and never trims it (mallopt(3)). This applies to the
main thread, which trains on a CPU; other threads have heaps of 64 MiB, and map larger blocks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from ftbench.base.errors import ProfileError
from ftbench.plan.profile import Malloc

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1
_VARIABLES = ("LD_PRELOAD", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")


def set_malloc(malloc: Malloc) -> None:
    """Set the C library of this process as a cell requests; a later `default` does not undo `keep`."""
    if malloc == "keep":
        library = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER)):
            if library.mallopt(parameter, value) != 1:
                raise OSError(f"mallopt({parameter}, {value}) was refused")


def malloc_variables() -> dict[str, str]:
    """Return the environment variables that are set and change how this process allocates.

    Another allocator (LD_PRELOAD), glibc's own settings (mallopt(3)), and huge pages of torch's allocator.
    """
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if value and (name in _VARIABLES or name.startswith("MALLOC_"))
    }


def require_mallopt(asked: Iterable[Malloc]) -> None:
    """Raise ProfileError if `keep` is requested and the C library has no mallopt."""
    if "keep" in asked and not hasattr(ctypes.CDLL(None), "mallopt"):
        raise ProfileError(
            "this C library has no mallopt; it needs glibc",
            where="malloc",
            got="keep",
            expected="default",
        )
