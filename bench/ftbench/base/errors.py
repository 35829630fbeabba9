"""Every error that a user can meet, and the exit code of each class.

    FtbenchError               2   the base; never raised itself
    ├── OutputError            2   a standard output that cannot be written
    ├── ProfileError           2   a profile, an override or a selection that cannot be used
    ├── WorkloadError          2   a model or a data set that is missing, or does not fit the profile
    │   └── HubUnreachable     2   a hub id, with neither a network nor a local copy
    ├── RunDirectoryError      2   a run directory that cannot be read or written
    │   ├── EnvironmentMismatch 2  a run directory measured under another environment
    │   └── DamagedFile        2   a file in it that is broken, or was changed after it was written
    ├── BaselineError          2   a baseline that is missing, cannot be read, or belongs to another profile
    ├── PredictionError        2   a setting, model or optimizer that prediction does not cover
    │   └── PatchError         2   a version of torch or transformers that prediction does not know
    ├── SnapshotError          2   a memory snapshot that cannot be read, or does not say which device is meant
    ├── ProgramError           2   a training loop of the user's own that cannot be loaded, or raises an error
    └── WorkerError            2   a worker that ended without an answer before the first cell

A cell that fails raises nothing: it is a record with its status (see `ftbench.records.record`), and the
command ends with exit code 1 (`EXIT_FINDING`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from ftbench.base.text import printable

_DETAILS = ("where", "got", "expected", "nearest", "hint")

EXIT_OK = 0
EXIT_FINDING = 1
EXIT_BAD_INPUT = 2
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h: a defect of this program, never a finding
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell expects after Ctrl-C
EXIT_READER_GONE = 141  # 128 + SIGPIPE, after `ftbench ... | head`
EXIT_TERMINATED = 143  # 128 + SIGTERM


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return a sentence that names a package that is not installed; None if one is, and lacks a part."""
    if error.name is None or "." in error.name or error.name == "ftbench":
        return None
    return f"the package {error.name} is missing; pip installs it"


class FtbenchError(Exception):
    """Says what is wrong and where, the value got, the values expected, and what to do next."""

    exit_code: ClassVar[int] = EXIT_BAD_INPUT

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: str | None = None,
        expected: str | None = None,
        nearest: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.nearest = nearest
        self.hint = hint

    def __str__(self) -> str:
        """Return the message as the terminal shows it: one headline, one line for each detail."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        for label in _DETAILS[1:]:
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label + ':':<10}{value}")
        return printable("\n".join(lines))

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON data, to carry it out of a worker process."""
        details = {name: getattr(self, name) for name in ("what", *_DETAILS)}
        return {"class": type(self).__name__, **details}

    @staticmethod
    def from_json(data: dict[str, Any]) -> FtbenchError:
        """Return the error that `to_json` described; an unknown class becomes a `WorkerError`.

        The data comes from another process: a detail that is missing or not a text is left out.
        """
        fields = {name: data[name] for name in _DETAILS if isinstance(data.get(name), str)}
        made = _CLASSES.get(str(data.get("class")), WorkerError)
        return made(str(data.get("what", "an error without a message")), **fields)

    def at(self, where: str) -> Self:
        """Return this error with its place put in front of the one it already names."""
        self.where = f"{where}: {self.where}" if self.where else where
        return self


class OutputError(FtbenchError):
    """The standard output cannot be written: the disk behind it is full, or it is closed."""


class ProfileError(FtbenchError):
    """A profile, an override or a selection that cannot be used."""


class WorkloadError(FtbenchError):
    """A model or a data set that is missing, or does not fit the profile."""


class HubUnreachable(WorkloadError):  # noqa: N818 - reads better than ...Error
    """A hub id that is not in the local cache, while the hub cannot be reached."""


class RunDirectoryError(FtbenchError):
    """A run directory that cannot be read or written."""


class EnvironmentMismatch(RunDirectoryError):  # noqa: N818 - reads better than ...Error
    """A run directory whose records were measured under another environment."""


class DamagedFile(RunDirectoryError):  # noqa: N818 - reads better than ...Error
    """A file of a run directory that is broken, cut off, or was changed after it was written."""


class BaselineError(FtbenchError):
    """A baseline that is missing, cannot be read, or belongs to another profile."""


class PredictionError(FtbenchError):
    """A setting, model or optimizer that prediction does not cover: it refuses rather than guesses."""


class PatchError(PredictionError):
    """A private name that the installed version of torch or transformers does not have."""


class SnapshotError(FtbenchError):
    """A memory snapshot that cannot be read, or does not say which device is meant."""


class ProgramError(FtbenchError):
    """A training loop of the user's own that cannot be loaded, or that raises an error when it is traced."""


class WorkerError(FtbenchError):
    """A worker that ended without an answer, before any cell could run."""


_CLASSES: dict[str, type[FtbenchError]] = {
    cls.__name__: cls
    for cls in (
        OutputError,
        ProfileError,
        WorkloadError,
        HubUnreachable,
        RunDirectoryError,
        EnvironmentMismatch,
        DamagedFile,
        BaselineError,
        PredictionError,
        PatchError,
        SnapshotError,
        ProgramError,
        WorkerError,
    )
}


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to a mistyped one, or None if none is close."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return matches[0] if matches else None
