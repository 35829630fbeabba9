"""Subjects: copies of real code with a change in them, as steps that can be traced.

The training program is `training.py`, the model is transformers' own file of DistilBERT, as it is installed.
Both are read as text, changed, and run under names of their own; nothing installed is touched.
"""

import dataclasses
import importlib
import itertools
import sys
import types
from pathlib import Path

MODELING = "transformers.models.distilbert.modeling_distilbert"
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Edit:
    """A text that is there once, and what takes its place; `everywhere` it may be there more often."""

    file: str  # "model" or "training"
    old: str
    new: str
    everywhere: bool = False

    def of(self, text):
        """Return the text with the edit; an edit that does not apply is an error."""
        count = text.count(self.old)
        if count == 0 or (count > 1 and not self.everywhere):
            raise ValueError(f"{self.old!r} is there {count} times in {self.file}")
        return text.replace(self.old, self.new)


def _changed(file, path, edits):
    text = Path(path).read_text()
    for edit in edits:
        if edit.file == file:
            text = edit.of(text)
    return text


def _module(name, path, text, package=None):
    module = types.ModuleType(name)
    module.__file__ = str(path)
    module.__package__ = package
    sys.modules[name] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def subject(edits=()):
    """Return the `make_step(device)` of the program and the model with these edits."""
    original = importlib.import_module(MODELING)
    package, _, stem = MODELING.rpartition(".")
    number = next(_numbers)
    modeling = _module(
        f"{package}.{stem}_{number}",
        original.__file__,
        _changed("model", original.__file__, edits),
        package,
    )
    path = Path(__file__).with_name("training.py")
    training = _module(f"mutated_training_{number}", path, _changed("training", path, edits))
    return lambda device: training.make_step(modeling, device)
