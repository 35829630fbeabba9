"""Channel: the lines of JSON that a worker sends, read without ever waiting for the rest of a line.

A worker can be stopped in the middle of a line. A reader that waits for the rest would hang beyond any time
limit; this one takes only the bytes that have arrived.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from pydantic import ValidationError

from ftbench.records.messages import Event

_CHUNK = 1 << 16
# An answer has some tens of KiB. A longer line than this is not an answer.
MAX_LINE_BYTES = 64 << 20


class ProtocolError(Exception):
    """The channel received data that is not an event."""


class Channel:
    """The parent's end of a worker's pipe."""

    def __init__(self, descriptor: int) -> None:
        """Read from a descriptor, which is made non-blocking."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._unread = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for `connection.wait`."""
        return self._descriptor

    def take(self) -> Iterator[Event]:
        """Yield the events whose lines are complete; raises ProtocolError, and EOFError at the end."""
        while chunk := self._chunk():
            *lines, rest = (self._unread + chunk).split(b"\n")
            self._unread = rest
            if len(rest) > MAX_LINE_BYTES:
                raise ProtocolError("a line without an end")
            for line in lines:
                yield _event(bytes(line))

    def _chunk(self) -> bytes | None:
        """Return the bytes that have arrived; None if there are none. Raises EOFError if the pipe is closed."""
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
