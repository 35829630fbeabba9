"""Fits that are corrected for other ranks, held against the traces of these ranks, event by event."""

import itertools

import pytest

from ftbench.plan.parallel import Parallel
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.shapes.shapes import ShapeTracer, trace_shapes
from ftbench.prediction.trace.tracer import Target
from tests.traced import traced_cell

pytestmark = pytest.mark.integration

# Widths of 60 and 100 divide by no number of ranks but 2 and 4: rows of all shards are uneven.
UNEVEN = {
    "num_hidden_layers": 1,
    "hidden_size": 60,
    "intermediate_size": 100,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
LENGTHS = (32, 40, 64, 88, 104, 128, 160)
BATCHES = (1, 2, 6)
NUMBERS = (2, 8)


def tracers(strategy, model="llama", **options):
    task = {} if model == "bert" else {"task": "causal-lm"}
    cell = traced_cell(model, config=UNEVEN if model == "llama" else None, **task)
    parallel = Parallel(strategy=strategy, **options)
    for number in NUMBERS:
        changes = {"num_processes": number, "strategy": strategy, "parallel": parallel}
        one = cell.model_copy(update=changes)
        for rank in {0, number - 1}:
            yield ShapeTracer(one, Target(), SequenceLengths(), rank=rank)


class Traced:
    def __init__(self):
        self.number = 0

    def __call__(self, function, jobs):
        self.number += len(jobs)
        return [function(job) for job in jobs]


@pytest.mark.parametrize(
    ("strategy", "model"),
    [
        ("fsdp2", "llama"),
        pytest.param("ddp", "bert", marks=pytest.mark.long),
        pytest.param("fsdp1", "llama", marks=pytest.mark.long),
    ],
)
def test_ranks_are_corrected_to_what_their_own_traces_say(strategy, model):
    shapes = list(itertools.product(BATCHES, LENGTHS))
    alike, numbers = [], []
    for tracer in tracers(strategy, model):
        run = Traced()
        found = trace_shapes(tracer, shapes, run, every_batch=True, alike=alike)
        alike.insert(0, found)
        numbers.append(run.number)
        if len(alike) > 1:
            for shape in ((1, 88), (6, 104)):
                computed, traced = found.at(shape), tracer.trace(shape)
                assert traced.same_events(computed)
                assert computed.nbytes.tolist() == traced.nbytes.tolist()
                assert computed.kernels == traced.kernels
                assert found.peak_bytes(shape) == traced.peak_bytes
    assert numbers[0] == 12  # five shapes and one to check, of several examples and of one
    assert numbers[1:] == [4] * (len(numbers) - 1)
