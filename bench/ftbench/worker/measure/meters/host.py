"""Host memory of this process, from the kernel's own high-water mark.

`getrusage` is not suitable: its peak is inherited across exec and cannot be reset. `VmHWM` in
`/proc/self/status` is reset by writing 5 to `/proc/self/clear_refs` (Linux, proc(5)), so each
phase has a peak of its own, without the peak of importing torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from ftbench.base.units import KIB

_VM = {name: re.compile(rf"^{name}:\s+(\d+) kB$", re.MULTILINE) for name in ("VmHWM", "VmRSS")}


class HostMemory:
    """Peak resident set size of this process."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._status = proc / "status"
        self._clear_refs = proc / "clear_refs"
        self._reason: str | None = None

    def idle(self) -> dict[str, int]:
        """Return the current resident size."""
        return self._figure("VmRSS")

    def start(self, phase: str) -> None:
        """Begin a new peak at the current resident size."""
        try:
            self._clear_refs.write_text("5")
        except OSError as error:
            self._reason = f"the peak cannot be reset: {self._clear_refs}: {error.strerror}"

    def read(self) -> dict[str, int]:
        """Return the peak since `start`, in bytes; nothing if it could not be reset."""
        return self._figure("VmHWM") if self._reason is None else {}

    def _figure(self, name: str) -> dict[str, int]:
        try:
            match = _VM[name].search(self._status.read_text())
        except OSError as error:
            self._reason = f"{self._status}: {error.strerror}"
            return {}
        if match is None:
            self._reason = f"{self._status} has no {name}"
            return {}
        return {"peak_rss_bytes": int(match.group(1)) * KIB}

    def sources(self) -> dict[str, str]:
        """Return the source of the figure."""
        return {"peak_rss_bytes": "VmHWM of /proc/self/status, reset as each phase begins"}

    def absent(self) -> dict[str, str]:
        """Return the reason that there is no peak, if there is none."""
        return {"peak_rss_bytes": self._reason} if self._reason else {}
