"""Subjects: copies of real code with a change in them, as steps that can be traced.

The training program is `training.py`, the model is transformers' own file of DistilBERT, as it is installed.
Loops on several GPUs are those of `examples/sharded_gpt.py`. All are read as text, changed, and run under names of
their own; nothing installed is touched.
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

    file: str  # "model", "training", "sharded" or "gpt"
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


EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"batch": 2, "length": 64, "width": 64, "layers": 3, "heads": 2, "micro_batches": 2}


def sharded_subject(factory, edits=()):
    """Return a factory of the loops on several GPUs, small and with these edits; it takes a device and a mesh."""
    number = next(_numbers)
    gpt, path = EXAMPLES / "gpt.py", EXAMPLES / "sharded_gpt.py"
    before = sys.modules.get("gpt")
    _module("gpt", gpt, _changed("gpt", gpt, edits))
    sys.modules["gpt"].VOCABULARY = 1021
    try:
        loops = _module(f"mutated_sharded_{number}", path, _changed("sharded", path, edits))
    finally:
        del sys.modules["gpt"]
        if before is not None:
            sys.modules["gpt"] = before
    make = getattr(loops, factory)
    if factory == "replicated":
        return lambda device: make(device, **SMALL)
    return lambda device, mesh: make(device, mesh, **SMALL)
