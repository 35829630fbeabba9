"""Traces of both ranks against two real processes with gloo: at most 1 KiB apart (`tests/two_processes.py`).

What gloo does that NCCL does not is put into the trace here: it clones the input of a reduce-scatter. What is left
are the numbers that the Reducer of DistributedDataParallel exchanges on new buckets.
"""

import json
import os
import subprocess
import sys

import pytest
from torch.nn.parallel import distributed

from ftbench.base.units import KIB
from ftbench.prediction.trace.process_group import OneRank
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import Target, trace
from tests.two_processes import CASES, RANKS, STEPS

pytestmark = pytest.mark.integration

LIMIT = 1 * KIB


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    command = [
        sys.executable,
        "-m",
        "tests.two_processes",
        str(folder / "meeting"),
        str(folder / "peaks"),
    ]
    subprocess.run(command, check=True, timeout=600, env=os.environ)
    return json.loads((folder / "peaks").read_text())


@pytest.fixture
def as_gloo(monkeypatch):
    reduce_scatter = OneRank.reduce_scatter_single

    def cloning(group, output, inputs, *options, **named):
        clone = inputs.clone()
        done = reduce_scatter(group, output, clone, *options, **named)
        del clone
        return done

    monkeypatch.setattr(OneRank, "reduce_scatter_single", cloning)
    monkeypatch.setattr(distributed, "_sync_module_states", lambda *args, **kwargs: None)


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("case", CASES)
def test_a_trace_is_within_a_kibibyte_of_a_process(case, rank, measured, as_gloo):
    target = Target(device="cpu", padding=False)
    traced = trace(CASES[case], steps=STEPS, target=target, ranks=Ranks(RANKS, rank=rank))
    assert abs(traced.peak_bytes - measured[case][rank]) <= LIMIT
