"""ftbench: benchmarks and resource profiles of full-parameter fine-tuning.

    import ftbench

    results = ftbench.run("quick")         # or ftbench.open("results/quick")
    results.to_pandas()                    # one row per run; a notebook shows `results` as a table
    ftbench.predict("quick", gpu="l4")     # memory on a card, without one
    ftbench.estimate("quick", gpu="l4")    # time, memory, cost and score of a run that was not made
    ftbench.gate("memory")                 # predicted memory, held to its baseline

Importing it takes milliseconds: what a verb needs is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftbench.verbs.estimate import estimate
    from ftbench.verbs.gate import gate
    from ftbench.verbs.predict import predict
    from ftbench.verbs.results import open as open  # noqa: A004 - `ftbench.open`
    from ftbench.verbs.run import run

__version__ = "0.1.0"
# Without `open`, so that a star import leaves Python's own alone.
__all__ = ["__version__", "estimate", "gate", "predict", "run"]

_VERBS = {
    "estimate": ("ftbench.verbs.estimate", "estimate"),
    "gate": ("ftbench.verbs.gate", "gate"),
    "open": ("ftbench.verbs.results", "open"),
    "predict": ("ftbench.verbs.predict", "predict"),
    "run": ("ftbench.verbs.run", "run"),
}


def __getattr__(name: str) -> Any:
    """Return a verb, imported when it is first asked for; raises AttributeError."""
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _VERBS[name]
    return globals().setdefault(name, getattr(import_module(module), attribute))


def __dir__() -> list[str]:
    """Return the names of a module, with the verbs."""
    return sorted({*globals(), *_VERBS})
