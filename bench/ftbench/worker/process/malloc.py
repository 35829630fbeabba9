"""What the C library does with memory that was freed, for the cells that ask for it.

glibc gives every block above a threshold back to the kernel when it is freed (M_MMAP_THRESHOLD: it
adapts, up to 32 MiB), and the end of the heap where it is free (M_TRIM_THRESHOLD). A training step
frees most of what it allocated, so the kernel zeroes the same pages anew in each: page by page, in
page faults. `keep` makes all blocks from the heap and never trims it (mallopt(3)). That is so in the
main thread, which trains on a CPU; other threads have heaps of 64 MiB, and map what is larger.
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
    """Have this process's C library do as a cell asks; a later `default` undoes nothing."""
    if malloc == "keep":
        library = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER)):
            if library.mallopt(parameter, value) != 1:
                raise OSError(f"mallopt({parameter}, {value}) was refused")


def malloc_variables() -> dict[str, str]:
    """Return the environment variables that are set and decide how this process allocates.

    Another allocator (LD_PRELOAD), glibc's own settings (mallopt(3)), and huge pages of torch's allocator.
    """
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if value and (name in _VARIABLES or name.startswith("MALLOC_"))
    }


def require_mallopt(asked: Iterable[Malloc]) -> None:
    """Raise ProfileError where memory is to be kept and the C library has no way to say so."""
    if "keep" in asked and not hasattr(ctypes.CDLL(None), "mallopt"):
        raise ProfileError(
            "this C library has no mallopt, which glibc has",
            where="malloc",
            got="keep",
            expected="default",
        )
