"""Imported once by the fork server, so that a worker forked from it starts in a tenth of a second.

Nothing but imports and tables of libraries: a process that has started threads or touched CUDA must not be
forked. The garbage collector is off meanwhile: it would take a seventh of the time.
"""

import contextlib
import gc
import importlib

from ftbench.worker.process.peft_alone import import_peft_alone

gc.disable()
# Before transformers' Trainer, which would import it with bitsandbytes: on processors with AVX512-BF16 that prints
# a warning, which nobody can act on, on the terminal of the command that started the server.
import_peft_alone()
importlib.import_module("ftbench.worker.launch.main")
importlib.import_module("ftbench.worker.prepare.prepare")

with contextlib.suppress(ImportError):  # transformers before 5 has no such table
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    # The table of all models' renamed weights is made when the first model is loaded: a thousand regular
    # expressions, a quarter of a second in every worker.
    get_checkpoint_conversion_mapping("bert")
gc.enable()
