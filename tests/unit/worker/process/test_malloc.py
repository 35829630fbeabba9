import ctypes
import platform
import subprocess
import sys

import pytest

from ftbench.base.errors import ProfileError
from ftbench.worker.process.malloc import require_mallopt

# A block above the threshold of any glibc, made, filled and freed over and over: page faults a round.
ROUNDS = """
import ctypes, resource, sys
from ftbench.worker.process.malloc import set_malloc

set_malloc(sys.argv[1])
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(library.malloc(64 * 2**20))
    ctypes.memset(block, 1, 64 * 2**20)
    library.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""
PAGES = 64 * 2**20 // 4096
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def faults(malloc):
    command = [sys.executable, "-c", ROUNDS, malloc]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(part) for part in done.stdout.split()]


@needs_glibc
def test_kept_memory_is_faulted_in_once():
    first, *later = faults("keep")
    assert first > PAGES / 1024  # with huge pages there are fewer
    assert max(later) < PAGES / 1024


@needs_glibc
def test_by_default_each_round_faults_it_in_again():
    first, *later = faults("default")
    assert min(later) > first / 2


@needs_glibc
def test_a_c_library_without_it_is_refused_before_the_first_cell(monkeypatch):
    require_mallopt(["default", "keep"])
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    require_mallopt(["default"])
    with pytest.raises(ProfileError) as refused:
        require_mallopt(["default", "keep"])
    assert "mallopt" in str(refused.value)
