"""NCCL: the device memory of its communicators, which torch's allocator does not know.

How many channels a communicator has, and between which ranks it connects them, depends on the machine's links and
on the version of NCCL. An interval holds every choice. Sources: NCCL 2.27, `src/include/device.h` (steps, lines
and threads of the protocols), `src/init.cc` (`computeBuffSizes`), `src/graph/connect.cc` (channels), and NCCL's
documentation of `NCCL_BUFFSIZE`.
"""

from __future__ import annotations

from ftbench.base.units import MIB, format_bytes

_STEPS = 8  # NCCL_STEPS
_LINES = 8 * 512 * _STEPS * 16  # LL: lines per thread, threads, steps, bytes of ncclLLFifoLine
_LINES_128 = (
    120 * 640 * _STEPS * 8
)  # LL128: elements per thread, threads, steps, bytes of an element
_SIMPLE = 4 * MIB  # NCCL_BUFFSIZE by default
CONNECTION_BYTES = _LINES + _LINES_128 + _SIMPLE
_MOST_CHANNELS = 32
# Of a channel: the ring's neighbour, and in the two trees a parent and three children (NCCL_MAX_TREE_ARITY).
_MOST_CONNECTIONS = 1 + 4


def nccl_bytes(communicators: int) -> tuple[int, int]:
    """Return the least and the most bytes that communicators take of a card, beside torch's allocator.

    The least is 0: between cards without peer access, buffers are in the host's memory.
    """
    return 0, communicators * _MOST_CHANNELS * _MOST_CONNECTIONS * CONNECTION_BYTES


SEVERAL_PROCESSES = (
    "several processes: figures are those of the rank that needs most; verdicts allow for 0 to"
    f" {format_bytes(nccl_bytes(1)[1])} of NCCL's buffers per communicator, which no figure but `process` has"
)
