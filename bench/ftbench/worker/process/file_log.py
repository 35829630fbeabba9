"""A log of the files that a process and its forks read, by Python's audit events.

Python raises an event before it opens a file, lists a folder, loads an extension, starts a program or connects
(PEP 578; the table is in the documentation of `sys.audit`). It raises none for `os.stat`, which `os.path.exists`
calls, nor when multiprocessing spawns a process: these two functions are wrapped. Native code raises none: of that,
only the files that are mapped at the end are known. A hook cannot be removed, so this is for a process that answers
once.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import ftbench
from ftbench.base.files import Stamp, stamp_of
from ftbench.base.importable import importable_names, in_library, is_shared_library
from ftbench.records.recorded import FilesRead

_IMPORTERS = ("<frozen importlib._bootstrap_external>", f"{os.sep}importlib{os.sep}")
_MAKES = (
    os.O_CREAT | os.O_TRUNC
)  # opened for both without these, a file is read as well: `numpy.memmap`
_BETWEEN = tuple(f"{os.sep}{name}.py" for name in ("genericpath", "posixpath", "pathlib", "os"))
_OURS = f"{os.path.dirname(ftbench.__file__)}{os.sep}"  # noqa: PTH120
_NOT_ON_DISK = ("/proc/", "/sys/", "/dev/")
# After one of these, an answer may depend on anything.
_BEYOND = frozenset(
    {
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "sqlite3.connect",
        "subprocess.Popen",
        "urllib.Request",
    }
)


class FileLog:
    """Notes what is read from now on, also by processes that are forked from this one."""

    def __init__(self) -> None:
        """Begin the log: one nameless file, to which all processes append lines."""
        self._descriptor = os.memfd_create("ftbench-files-read")
        self._seen: set[tuple[str, str]] = set()
        self._written: set[str] = set()
        self._thread = threading.local()  # in it, `asleep` while the log itself opens files
        handlers: Mapping[str, Callable[..., None]] = {
            "open": self._opened,
            "import": self._loaded,
            "ctypes.dlopen": self._mapped,
            "os.listdir": self._listed,
            "os.scandir": self._listed,
        }

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _BEYOND:
                self._note("beyond", event)
            elif event in handlers and not self._asleep():
                self._thread.asleep = True  # what the log itself does is no event
                try:
                    handlers[event](*arguments)
                finally:
                    self._thread.asleep = False

        sys.addaudithook(hook)
        self._wrap(os, "stat", self._asked)
        self._wrap(_posixsubprocess, "fork_exec", lambda *_: self._note("beyond", "spawn"))

    def _asleep(self) -> bool:
        return getattr(self._thread, "asleep", False)

    def _wrap(self, module: Any, name: str, noted: Callable[..., None]) -> None:
        """Note the calls of a function for which Python raises no event."""
        function = getattr(module, name)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if not self._asleep():
                noted(*arguments)
            return function(*arguments, **options)

        setattr(module, name, wrapped)

    def read(self) -> FilesRead:
        """Return what was read so far; of a file that was opened several times, the first."""
        for path in _mapped_files():
            self._file(path)
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        lines = os.pread(self._descriptor, size, 0).decode().splitlines()
        files: dict[str, Stamp | None] = {}
        folders: dict[str, str] = {}
        beyond: dict[str, None] = {}
        for kind, name, value in map(json.loads, lines):
            if kind == "file":
                files.setdefault(name, value)
            elif kind == "made" and files.get(name, ...) is None:
                del files[name]
            elif kind == "folder":
                folders.setdefault(name, value)
            elif kind == "beyond":
                beyond[name] = None
        return FilesRead(files=files, folders=folders, beyond=tuple(beyond))

    def _opened(self, path: Any, _mode: Any, flags: Any) -> None:
        name = _absolute(path)
        if name is None:
            return
        if name.startswith(_NOT_ON_DISK):
            if _by_own_code():
                self._note("beyond", name)
        elif flags & os.O_WRONLY or (flags & os.O_RDWR and flags & _MAKES):
            self._written.add(name)
            self._note("made", name)
        elif name not in self._written:
            self._file(_source_of(name))

    def _asked(self, path: Any = None, *_: Any) -> None:
        name = _absolute(path)
        if name is not None and _by_own_code():
            self._note("beyond", f"whether there is {name}")

    def _loaded(self, _module: Any, filename: Any, *_: Any) -> None:
        if name := _absolute(filename):
            self._file(name)

    def _mapped(self, name: Any) -> None:
        if isinstance(name, str) and os.sep in name:
            self._loaded(None, name)

    def _listed(self, path: Any = None, *_: Any) -> None:
        name = _absolute("." if path is None else path)
        if name is None or in_library(f"{name}{os.sep}"):
            return
        caller = sys._getframe(2).f_code.co_filename  # below the hook
        if not any(importer in caller for importer in _IMPORTERS):
            self._note("beyond", f"a list of {name}")
        elif ("folder", name) not in self._seen:
            self._note("folder", name, importable_names(name))

    def _file(self, name: str) -> None:
        if ("file", name) not in self._seen:
            self._note("file", name, stamp_of(name))

    def _note(self, kind: str, name: str, value: Stamp | str | None = None) -> None:
        name = name.encode(
            errors="replace"
        ).decode()  # no such file: what depends on it is not kept
        if (kind, name) not in self._seen:
            self._seen.add((kind, name))
            os.write(self._descriptor, f"{json.dumps([kind, name, value])}\n".encode())


def _absolute(path: Any) -> str | None:
    """Return a path as an absolute name; None for a descriptor of an open file."""
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - thousands of them


def _by_own_code() -> bool:
    """Return whether a file is asked for by code that is neither a library's nor ftbench's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.endswith(_BETWEEN) and not file.startswith("<"):
            return not in_library(file) and not file.startswith(_OURS)
        frame = frame.f_back
    return False


def _source_of(name: str) -> str:
    """Return the file that bytecode was made of, as which it is checked by Python; other files as they are."""
    if not name.endswith(".pyc"):
        return name
    try:
        source = importlib.util.source_from_cache(name)
    except ValueError:
        return name
    return source if os.path.isfile(source) else name  # noqa: PTH113


def _mapped_files() -> list[str]:
    """Return the shared libraries that are mapped into this process's memory."""
    with open("/proc/self/maps") as lines:  # noqa: PTH123
        names = [line.rstrip("\n").partition("/") for line in lines]
    found = dict.fromkeys(f"/{name}" for _, slash, name in names if slash)
    return [name for name in found if is_shared_library(name) and os.path.isfile(name)]  # noqa: PTH113
