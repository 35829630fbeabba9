"""Traces in processes of their own: the same bytes everywhere, and models that no host could hold."""

import json
import os
import subprocess
import sys

import pytest

from ftbench.base.units import GIB

pytestmark = pytest.mark.integration


def printed(script, **environment):
    """What a script prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HASHES = """
import hashlib, json
from ftbench.prediction.trace.tracer import Target
from ftbench.prediction.trace.trace_trainer import trace_trainer
from tests.traced import traced_cell

def hashed(trace):
    found = hashlib.sha256()
    for column in (trace.kind, trace.block, trace.nbytes, trace.site):
        found.update(column.tobytes())
    for part in (trace.sites, trace.kernels, sorted(trace.traced_roles.items()), trace.versions):
        found.update(repr(part).encode())
    return found.hexdigest()

# Half precision: autocast drops its cache of weights in the order of a hash table.
cells = [
    traced_cell("bert", "sdpa", batch=4, length=32, bf16=True),
    traced_cell("distilbert", "eager", batch=4, length=32, gradient_checkpointing=True),
]
print(json.dumps([
    hashed(trace_trainer(cell, Target(device=device), steps=2))
    for cell in cells
    for device in ("cuda", "cpu")
]))
"""


def test_a_trace_is_the_same_in_every_process():
    one = printed(HASHES, PYTHONHASHSEED="1", OMP_NUM_THREADS="1")
    other = printed(HASHES, PYTHONHASHSEED="4321", OMP_NUM_THREADS="2", MALLOC_PERTURB_="7")
    assert one == other
    assert len(set(one)) == 4


SEVEN_BILLION = """
import json, resource, sys, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from ftbench.prediction.trace.tracer import trace

def factory(device):
    config = LlamaConfig(attn_implementation="sdpa", use_cache=False)  # the defaults are Llama 7B's
    model = LlamaForCausalLM(config).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.ones(1, 512, dtype=torch.int64, device=device)

    def step():
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step

began = time.perf_counter()
found = trace(factory, steps=2)
roles = found.roles()
weights = sum(
    int(nbytes)
    for kind, block, nbytes in zip(found.kind, found.block, found.nbytes)
    if kind == 1 and roles[block] == "parameters"
)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "weights": weights,
    "peak_bytes": found.peak_bytes,
    "events": len(found),
}))
"""


def test_a_model_of_seven_billion_parameters_needs_no_memory_of_its_size():
    found = printed(SEVEN_BILLION)
    parameters = 6_738_415_616  # as published for the 7 B model
    assert 4 * parameters <= found["weights"] <= 4 * parameters + GIB / 1024
    # Weights, gradients, and activations of 512 tokens.
    assert 8 * parameters < found["peak_bytes"] < 9 * parameters
    assert found["rss_bytes"] < 4 * GIB, found
