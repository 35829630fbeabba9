"""Imported once by the fork server, so that a worker forked from it starts in a tenth of a second.

Nothing but imports and tables of libraries: a process that has started threads or touched CUDA must not be
forked.
"""

import contextlib

import ftbench.worker.launch.main
import ftbench.worker.prepare.prepare  # noqa: F401

with contextlib.suppress(ImportError):  # transformers before 5 has no such table
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    # The table of all models' renamed weights is made when the first model is loaded: a thousand regular
    # expressions, a quarter of a second in every worker.
    get_checkpoint_conversion_mapping("bert")
