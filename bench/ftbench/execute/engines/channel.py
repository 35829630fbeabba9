"""Channel: the lines of JSON that a worker sends, read without ever waiting for the rest of one.

A worker can be stopped in the middle of a line. A reader that waits for the rest would hang with
it, beyond any time limit; this one takes what is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from pydantic import ValidationError

from ftbench.records.messages import Event

_CHUNK = 1 << 16
# An answer is some tens of KiB. A line that grows beyond this is no answer.
MAX_LINE_BYTES = 64 << 20


class ProtocolError(Exception):
    """Something that is no event came up the channel."""


class Channel:
    """The parent's end of a worker's pipe."""

    def __init__(self, descriptor: int) -> None:
        """Read from a descriptor, which is set not to block."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._unread = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for `connection.wait`."""
        return self._descriptor

    def take(self) -> Iterator[Event]:
        """Yield the events whose lines are complete by now; raises Nonsense, EOFError at the end."""
        while chunk := self._chunk():
            *lines, rest = (self._unread + chunk).split(b"\n")
            self._unread = rest
            if len(rest) > MAX_LINE_BYTES:
                raise ProtocolError("a line without an end")
            for line in lines:
                yield _event(bytes(line))

    def _chunk(self) -> bytes | None:
        """Return what is there; None for nothing now. Raises EOFError once the pipe is closed."""
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not chunk:
            raise EOFError
        return chunk


def _event(line: bytes) -> Event:
    try:
        return Event.model_validate(json.loads(line))
    except (ValueError, ValidationError, RecursionError) as error:
        raise ProtocolError(f"not an event: {line[:80]!r}") from error
