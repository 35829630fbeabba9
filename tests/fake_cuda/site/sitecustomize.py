"""Gives every Python process of a rehearsal the fake card: this folder is on its PYTHONPATH, beside the repository.

Nothing is loaded before torch is imported; a process that is to see no card has none.
"""

import os

from tests.fake_cuda import rehearsal

if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
    rehearsal.when_imported("torch", rehearsal.load_card, rehearsal.stand_in)
rehearsal.when_imported(
    "ftbench.predict.simulate.workspaces.workspaces", after=rehearsal.no_workspaces
)
rehearsal.when_imported("ftbench.predict.trace.attention", after=rehearsal.efficient_attention)
