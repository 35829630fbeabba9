"""The peak of real tensors on the CPU, which torch's profiler watches: of a Trainer, or of a rank's steps."""

import contextlib
import gc
import tempfile

import torch

from ftbench.prediction.trace import trace_trainer as trainer
from ftbench.worker.measure.meters.cpu_tensors import CpuTensorMemory
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.two_step_pass import first_steps_of


def peak_of_training(cell, *, padded, steps):
    """Return the peak of the real Trainer's tensors, on the documents that the trace is made with."""
    train, evaluated = trainer._pools(cell, trainer.Batches.of(cell), steps)
    pools = (train, evaluated.select([0] * cell.data.eval_size))
    if padded:
        pools = tuple(_with_padding(pool) for pool in pools)
    with (
        tempfile.TemporaryDirectory() as output,
        trainer._states_of_its_own(),
        without_collector(),
    ):
        meter = CpuTensorMemory()
        meter.start()
        real = make_trainer(
            first_steps_of(cell, steps),
            ("0", "1"),
            pools,
            seed=cell.seed,
            output=output,
            use_cpu=True,
            phases=PhaseBook([]),
            steps=StepBook(),
        )
        real.train()
        real.evaluate()
        return meter.read()["peak_cpu_tensors_bytes"]


def peak_of_steps(factory, mesh, steps):
    """Return the peak of a rank's tensors over some steps; a factory of two arguments gets the mesh."""
    device, takes_mesh = torch.device("cpu"), factory.__code__.co_argcount == 2
    with without_collector():
        meter = CpuTensorMemory()
        meter.start()
        step = factory(device, mesh) if takes_mesh else factory(device)
        result = None
        for _ in range(steps):
            result = step()
        del step, result
        return meter.read()["peak_cpu_tensors_bytes"]


@contextlib.contextmanager
def without_collector():
    """Have Python's cyclic collector off, as a trace has: when it runs depends on the whole process.

    With it on Adafactor's cells were 0.7 MB off or exact, depending on the tests before them.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _with_padding(pool):
    """Return the same documents, their last token one of padding."""
    rows = pool.with_format(None).to_list()
    for row in rows:
        row["attention_mask"][-1] = 0
    return type(pool).from_list(rows).with_format("torch")
