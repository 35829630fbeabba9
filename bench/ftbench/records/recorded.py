"""Recorded: predictions, and the files that a worker read for them, so that they can be kept. Plain data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ftbench.base.files import Stamp
from ftbench.base.frozen import FrozenModel
from ftbench.records.prediction import Predictions


class RecordedRequest(FrozenModel):
    """Asks for the predictions of `module.main` for a request, and for the files that it reads for them."""

    module: str
    request: dict[str, Any]


class FilesRead(FrozenModel):
    """The files that a worker and the processes forked from it opened for reading.

    `files` has the stamp of each at that time, None if it was not there. `folders` are those outside of libraries
    in which a module was looked for, each with a digest of the names in it that can be imported. `beyond` are
    events after which the answer may depend on more than files: programs that were started, connections, and
    folders that were listed.
    """

    files: dict[str, Stamp | None] = Field(default_factory=dict)
    folders: dict[str, str] = Field(default_factory=dict)
    beyond: tuple[str, ...] = ()


class RecordedPredictions(FrozenModel):
    """The predictions of a worker, and the files that it read."""

    answer: Predictions
    read: FilesRead
