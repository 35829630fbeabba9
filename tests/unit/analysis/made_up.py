"""Made-up tables of runs from known laws, for tests of the fits."""

import itertools

import numpy as np
import pandas as pd

AXES = ["max_length", "per_device_train_batch_size", "train_size"]
LENGTHS = (64, 128, 256, 512)
BATCHES = (4, 8, 16)
EVALUATIONS, EVAL_SIZE, EPOCHS, CHECKPOINTS = 4, 100, 3, 3


def step_s(length, batch, t=(0.05, 4e-4, 1e-6)):
    """Return the time of a step: t0 + t1*B*S + t2*B*S^2."""
    return t[0] + t[1] * batch * length + t[2] * batch * length**2


def total_s(length, batch, documents):
    """Return the parts of a run's time without noise, by column."""
    rest = documents % batch
    an_epoch = documents // batch * step_s(length, batch)
    an_epoch = an_epoch + np.where(rest > 0, step_s(length, rest), 0)
    return {
        "load_s": 0.5 + 0 * length,
        "train_s": 0.3 + 1.02 * EPOCHS * an_epoch,
        "evaluation_s": EVALUATIONS * EVAL_SIZE * (0.001 + 1e-4 * length),
        "save_s": 1.0 + 0 * length,
    }


def memory_bytes(length, batch, m=(9e8, 3e5, 600.0), floor=1.1e9):
    """Return a peak: the optimizer's step, or what length and batch make it."""
    return np.maximum(floor, m[0] + m[1] * batch * length + m[2] * batch * length**2)


def table(
    seed=0, noise=0.03, *, lengths=LENGTHS, batches=BATCHES, sizes=(100,), repeats=1, own=0.0, **law
):
    """Return runs of a grid whose costs have relative noise, each cell `repeats` times.

    `own` is the noise that all runs of a cell share in their training.
    """
    draw = np.random.default_rng(seed)
    points = np.array(list(itertools.product(lengths, batches, sizes)), dtype=float)
    points = np.repeat(points, repeats, axis=0)
    length, batch, documents = points.T

    def noisy(cost, share=1.0):
        return cost * np.exp(draw.normal(0, noise * share, len(cost))) if noise else cost

    runs = pd.DataFrame(points, columns=AXES)
    runs["examples_per_step"] = batch
    runs["examples_per_epoch"] = documents
    runs["epochs"] = float(EPOCHS)
    runs["optimizer_steps"] = EPOCHS * np.ceil(documents / batch)
    runs["eval_documents"] = float(EVALUATIONS * EVAL_SIZE)
    runs["checkpoints"] = float(CHECKPOINTS)
    runs["seed"] = np.arange(len(points)) % repeats
    of_run = noisy(np.ones(len(points)))  # what one run has in all its steps
    if own:
        of_run = of_run * np.repeat(np.exp(draw.normal(0, own, len(points) // repeats)), repeats)
    runs["step_median_s"] = step_s(length, batch, **law) * of_run
    for name, seconds in total_s(length, batch, documents).items():
        runs[name] = noisy(seconds, 0.3)
    runs["train_s"] *= of_run
    runs["total_s"] = runs[["load_s", "train_s", "evaluation_s", "save_s"]].sum(axis=1)
    runs["peak_rss_bytes"] = noisy(memory_bytes(length, batch), 0.5)
    return runs
