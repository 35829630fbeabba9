"""Control groups: the kernel enforces a worker's memory limit, and counts the processes killed for memory.

Both versions of control groups are supported (Linux, Documentation/admin-guide/cgroup-v1/memory.rst and
cgroup-v2.rst). A new group is made inside the group of this process, so that all outer limits stay in force.
Not every machine allows that; then `CgroupUnavailable` gives the reason, and the peak is compared with the
limit afterwards.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from pathlib import Path
from typing import Literal

Version = Literal[1, 2]
_SERIAL = itertools.count()
_REMOVAL_S = 5.0
_NO_LIMIT = 1 << 62  # version 1 writes the largest number of pages
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class CgroupUnavailable(Exception):  # noqa: N818 - not an error: limits are compared afterwards
    """No control group can be made here, with the reason."""


@dataclasses.dataclass(frozen=True)
class MemoryCgroup:
    """One control group with a memory controller."""

    path: Path
    version: Version

    @classmethod
    def own(cls, proc: Path = Path("/proc/self")) -> MemoryCgroup:
        """Return the group of this process; raises CgroupUnavailable."""
        return cls(*_own(proc, "memory"))

    def limit_bytes(self) -> int | None:
        """Return the least memory limit of this group and of those around it; None without a limit."""
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        limits = [int(text) for text in _of_outer_groups(self.path, name) if text.isdecimal()]
        return min((limit for limit in limits if limit < _NO_LIMIT), default=None)

    def make(self, limit_bytes: int) -> MemoryCgroup:
        """Return a new group inside this one with a limit of `limit_bytes`, including swap.

        Raises CgroupUnavailable if the kernel or its owner does not allow it.
        """
        group = MemoryCgroup(
            self.path / f"ftbench-{os.getpid()}-{next(_SERIAL)}", version=self.version
        )
        try:
            if self.version == 2 and not _offers(self.path / "cgroup.subtree_control", "memory"):
                (self.path / "cgroup.subtree_control").write_text("+memory")
            group.path.mkdir()
        except OSError as error:
            raise CgroupUnavailable(f"{self.path}: {error.strerror}") from error
        try:
            group._limit(limit_bytes)
        except OSError as error:
            group.remove()
            raise CgroupUnavailable(f"{group.path}: {error.strerror}") from error
        return group

    def _limit(self, limit_bytes: int) -> None:
        if self.version == 1:
            (self.path / "memory.limit_in_bytes").write_text(str(limit_bytes))
            swap = self.path / "memory.memsw.limit_in_bytes"
            if swap.exists():  # absent if the kernel does not count swap
                swap.write_text(str(limit_bytes))
            return
        (self.path / "memory.max").write_text(str(limit_bytes))
        swap = self.path / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
        # If one process is killed, so are the others: no part of a worker survives.
        (self.path / "memory.oom.group").write_text("1")

    @property
    def procs_file(self) -> Path:
        """Return the file into which a process writes its PID to join the group."""
        return self.path / "cgroup.procs"

    def oom_kills(self) -> int | None:
        """Return the number of processes of this group that the kernel killed for memory; None if unknown."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        try:
            count = _OOM_KILL.search((self.path / name).read_text())
        except OSError:
            return None
        return int(count.group(1)) if count else None

    def remove(self) -> None:
        """Remove the group once it is empty; a process may leave it a moment after its end."""
        deadline = time.monotonic() + _REMOVAL_S
        while self.path.exists():
            try:
                self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.01)


def processor_quota(proc: Path = Path("/proc/self")) -> float | None:
    """Return the processors whose time this process may use, by the control groups around it; None without a limit.

    That is a share of time, not of processors: after it is used up, all threads wait for the next period
    (Documentation/scheduler/sched-bwc.rst).
    """
    try:
        path, version = _own(proc, "cpu")
    except CgroupUnavailable:
        return None
    if version == 2:
        pairs = [text.split() for text in _of_outer_groups(path, "cpu.max")]
    else:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        columns = [_of_outer_groups(path, name) for name in names]
        pairs = [list(pair) for pair in zip(*columns, strict=False)]
    shares = [int(pair[0]) / int(pair[1]) for pair in pairs if pair and pair[0].isdecimal()]
    return min(shares, default=None)


def _of_outer_groups(path: Path, name: str) -> list[str]:
    """Return the texts of a file of a group and of those around it, as far as they are mounted."""
    found = []
    for group in (path, *path.parents):
        try:
            found.append((group / name).read_text().strip())
        except OSError:
            if (
                found
            ):  # above the mount point; a group at the root of all has no limits, nor files of them
                break
    return found


def _own(proc: Path, controller: str) -> tuple[Path, Version]:
    """Return the group of a process that has a controller; raises CgroupUnavailable."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError as error:
        raise CgroupUnavailable(f"{proc}: {error.strerror}") from error
    group = _mounted(lines, mounts, controller)
    if group is None:
        raise CgroupUnavailable(f"no control group with a {controller} controller is mounted")
    return group


def _mounted(lines: list[str], mounts: list[str], controller: str) -> tuple[Path, Version] | None:
    """Return the group named in /proc/PID/cgroup, at its mount point from /proc/PID/mountinfo."""
    for line in lines:
        number, controllers, path = line.split(":", 2)
        version: Version = 2 if number == "0" and not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mount in mounts:
            left, _, right = mount.partition(" - ")
            kind, _, options = right.split(" ", 2)
            root, point = left.split(" ")[3:5]
            if kind != ("cgroup2" if version == 2 else "cgroup"):
                continue
            if version == 1 and controller not in options.split(","):
                continue
            if path != root and not path.startswith(root.rstrip("/") + "/"):
                continue
            group = Path(point) / path.removeprefix(root).lstrip("/")
            if version == 1 or _offers(group / "cgroup.controllers", controller):
                return group, version
    return None


def _offers(file: Path, controller: str) -> bool:
    try:
        return controller in file.read_text().split()
    except OSError:
        return False
