"""Answers of predicting workers that are kept, so that the same question is answered without torch.

An answer is kept only if all that it depends on is known: the question and its surroundings (`determinants.py`),
and the files that the worker read (`fingerprints.py`). Refusals are not kept, nor answers without data that were
asked for.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pydantic import ValidationError

from ftbench.base.files import cache_folder, stamp_of
from ftbench.base.frozen import FrozenModel
from ftbench.base.importable import in_library, is_shared_library
from ftbench.execute.kept.determinants import key_of
from ftbench.execute.kept.fingerprints import fingerprints_of, unchanged
from ftbench.execute.kept.store import Store
from ftbench.plan.content import FIRST_HASHED_AFTER_NS, hashed_files
from ftbench.plan.sources import Source
from ftbench.records.prediction import Predictions, PredictRequest, ProgramRequest
from ftbench.records.recorded import FilesRead

Request = PredictRequest | ProgramRequest

FOLDER_VARIABLE = "FTBENCH_CACHE"
OFF = "off"


def default_store() -> Store | None:
    """Return the user's store, in `$FTBENCH_CACHE` or the user's cache folder; None if the variable is `off`."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named == OFF:
        return None
    return Store(Path(named) if named else cache_folder() / "answers")


class _Kept(FrozenModel):
    """What is kept: an answer, and the fingerprints of the files that it depends on."""

    files: dict[str, str]
    answer: Predictions


class KeptAnswer:
    """The answer to one question in a store: there, or to be kept there."""

    def __init__(self, store: Store, request: Request) -> None:
        """Look for nothing yet."""
        self._store = store
        self._request = request

    @functools.cached_property
    def _key(self) -> str:
        return key_of(self._request)

    def find(self) -> Predictions | None:
        """Return the answer; None if none is kept, or if a file that it depends on has changed."""
        data = self._store.read(self._key)
        try:
            kept = None if data is None else _Kept.model_validate(data)
        except ValidationError:
            return None
        return kept.answer if kept is not None and unchanged(kept.files) else None

    def keep(self, answer: Predictions, read: FilesRead) -> None:
        """Keep an answer, if all that it depends on is known and has not changed since it was read."""
        hashed = _hashed_files(self._request)
        if not _lasts(self._request, answer, read) or not all(map(_as_hashed, hashed)):
            return
        files = fingerprints_of(read, known=hashed)
        if files is not None:
            self._store.write(self._key, _Kept(files=files, answer=answer).model_dump(mode="json"))


def _lasts(request: Request, answer: Predictions, read: FilesRead) -> bool:
    """Return whether an answer depends on files only, and on none that are read unseen."""
    if answer.refused or answer.refused_cards:
        return False
    if isinstance(request, ProgramRequest):
        return _only_modules(read)
    return answer.data_at_hand == request.data_at_hand  # else a hub was out of reach


def _only_modules(read: FilesRead) -> bool:
    """Return whether a program's own code read nothing but modules: of other files, not every reading is seen."""
    own = [path for path, stamp in read.files.items() if stamp and not in_library(path)]
    return not read.beyond and all(
        is_shared_library(one) or one.endswith((".py", ".pyc")) for one in own
    )


def _hashed_files(request: Request) -> frozenset[str]:
    """Return the files of models and data that a request has the revisions of."""
    if isinstance(request, ProgramRequest):
        return frozenset()
    found: dict[Source, None] = {}
    for cell in request.cells:
        found |= dict.fromkeys((cell.model.source, cell.model.tokenizer, cell.data.source))
    places = [Path(source.location) for source in found if source.kind == "path"]
    return frozenset(str(file) for place in places for file in hashed_files(place, str(place))[1])


def _as_hashed(path: str) -> bool:
    """Return whether a file has not changed since this process began to hash files."""
    stamp = stamp_of(path)
    return stamp is not None and max(stamp[1:]) < FIRST_HASHED_AFTER_NS
