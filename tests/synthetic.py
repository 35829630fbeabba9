"""Records of a made-up run whose laws are known: as many cells as a test of a report wants."""

import random

from ftbench.plan.grid import expand
from ftbench.records.readings import Memory, Phase
from ftbench.records.record import Failure
from tests.factories import (
    data_source,
    measurement,
    model_source,
    preparation,
    profile,
    record,
    run_warning,
)

LENGTHS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 512)
BATCHES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48)
SIZES = (50, 100, 200, 300, 500, 1000, 1500, 2000, 3000, 5000)
FLOOR, A, B = 0.08, 1.9, 0.35
EVALUATED, EPOCHS = 2000, 3


def step_seconds(length, batch):
    """Return the law of a step's time: a floor, tokens, and attention."""
    return 0.05 + 2.5e-4 * batch * length + 2e-7 * batch * length**2


def peak_bytes(length, batch):
    """Return the law of peak memory."""
    return int(6.5e8 + 2.2e5 * batch * length + 180 * batch * length**2)


def accuracy(documents):
    """Return the law of accuracy: error = floor + a * documents ** -b."""
    return 1 - (FLOOR + A * documents**-B)


def records(lengths=LENGTHS, batches=BATCHES, sizes=SIZES, *, replicates=1, seed=1, noise=0.02):
    """Return one record a replicate of each cell; a few are noisy, one ran out of memory."""
    draw = random.Random(seed)
    axes = {"max_length": lengths, "per_device_train_batch_size": batches, "train_size": sizes}
    of = profile(grid=[{name: list(values) for name, values in axes.items()}])
    cells = expand(of, model_source(), data_source(eval_size=EVALUATED)).cells
    found = [
        _record(cell, replicate, draw, noise) for cell in cells for replicate in range(replicates)
    ]
    failed = found[-1]
    found[-1] = record(
        failed.cell,
        replicate=failed.replicate,
        status="oom",
        measurement=None,
        failure=Failure(message="out of memory: 512 MiB more were asked for", step=1),
    )
    return found


def document(of, **fits):
    """Return the report of these records."""
    from ftbench.report.document import build
    from tests.factories import environment

    where = environment()
    return build(of, profile(), preparation(), {where.environment_id: where}, **fits)


def _record(cell, replicate, draw, noise):
    length, batch = cell.max_length, cell.per_device_train_batch_size
    step_s = step_seconds(length, batch) * draw.lognormvariate(0, noise)
    peak = int(peak_bytes(length, batch) * draw.lognormvariate(0, noise / 4))
    score = accuracy(cell.train_size) + draw.gauss(0, 0.012)
    steps = max(14, EPOCHS * cell.train_size // batch)
    phases = _phases(step_s, steps, peak, length)
    warned = (run_warning("other processes used 31% of the processors"),) * (draw.random() < 0.02)
    measured = measurement(
        memory={"peak_rss_bytes": peak},
        step_median_s=step_s,
        total_s=sum(phase.wall_s for phase in phases.values()),
        train_s=phases["first_steps"].wall_s + phases["train"].wall_s,
        eval_accuracy=round(score, 4),
        warnings=warned,
        phases=phases,
    )
    return record(cell, replicate=replicate, measurement=measured)


def _phases(step_s, steps, peak, length):
    walls = {"load": 2.0, "first_steps": 2 * step_s, "train": step_s * (steps - 2)}
    walls |= {"evaluation": EPOCHS * EVALUATED * length * 4e-5, "save": 6.0}
    shares = {"load": 0.4, "first_steps": 0.97, "train": 1.0, "evaluation": 0.8, "save": 0.7}
    counts = {"first_steps": 2, "train": steps - 2}
    return {
        name: Phase(
            wall_s=wall,
            cpu_s=wall,
            entries=1,
            steps=counts.get(name),
            samples=80 if name == "train" else None,
            memory=Memory(peak_rss_bytes=int(peak * shares[name])),
        )
        for name, wall in walls.items()
    }
