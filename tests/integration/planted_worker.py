"""A worker with something planted in it: memory, a pause, a stall, in a phase or step that is known.

The body's `plants` maps functions of this module to their arguments; `module` is the real worker.
Its answer gets `resident`: what the process held, in bytes, when each plant of memory was about to
be put there.
"""

import importlib
import mmap
import time
from pathlib import Path

import torch
import transformers

from ftbench.base.units import MIB
from ftbench.worker.recipe import finetune
from ftbench.worker.recipe.metered_trainer import MeteredTrainer

RESIDENT = {}


def main(body, emit):
    for name, arguments in body.pop("plants").items():
        globals()[name](**arguments)
    answer = importlib.import_module(body.pop("module")).main(body, emit)
    return answer | {"resident": RESIDENT}


def note_resident(plant):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    # The most, where it is put there more than once: the second evaluation begins with more.
    RESIDENT[plant] = max(pages * mmap.PAGESIZE, RESIDENT.get(plant, 0))


def touch(plant, size_mib):
    """Hold this much memory for a moment, every page of it touched; none of it is torch's."""
    size = size_mib * MIB
    note_resident(plant)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # Small pages: the kernel books huge ones by their own rules.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def before(owner, name, action):
    """Have a method or function call `action` with its own arguments first."""
    original = getattr(owner, name)

    def planted(*args, **kwargs):
        action(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, planted)


def in_step(step, action):
    """Have `action(trainer)` called in one training step, between its data and its end."""

    def act(trainer, *args, **kwargs):
        if trainer.state.global_step + 1 == step:
            action(trainer)

    before(MeteredTrainer, "training_step", act)


def threads(count):
    """Have torch compute in this many threads.

    In more than one each operator waits for the last of them, and where other work shares the
    processors a step of 10 ms takes half a second now and then (seen, beside two busy processes).
    """
    torch.set_num_threads(count)


def memory_in_load(size_mib):
    before(finetune, "load_model", lambda *args, **kwargs: touch("memory_in_load", size_mib))


def memory_in_evaluation(size_mib):
    # Of the original, which the metered one calls with its phase begun.
    before(
        transformers.Trainer,
        "evaluate",
        lambda *args, **kwargs: touch("memory_in_evaluation", size_mib),
    )


def memory_in_step(step, size_mib):
    in_step(step, lambda trainer: touch("memory_in_step", size_mib))


def tensor_in_step(step, size_bytes):
    """A tensor that is there from one step to the end of the training."""

    def plant(trainer):
        trainer.planted = torch.ones(size_bytes, dtype=torch.uint8)

    in_step(step, plant)


def tensor_only_in_step(step, size_bytes):
    """A tensor that is gone before the step computes anything."""

    def plant(trainer):
        note_resident("tensor_only_in_step")
        torch.ones(size_bytes, dtype=torch.uint8)

    in_step(step, plant)


def error_in_step(step, message):
    def fail(trainer):
        raise RuntimeError(message)

    in_step(step, fail)


def sleep_in_step(step, seconds):
    in_step(step, lambda trainer: time.sleep(seconds))


def sleep_by_length(seconds_per_token):
    """A pause in every step, as long as its documents."""

    def pause(trainer, model, inputs, *args, **kwargs):
        time.sleep(seconds_per_token * inputs["input_ids"].shape[1])

    before(MeteredTrainer, "training_step", pause)


def stall_of_batch(batch, seconds):
    """A data loader that waits before one batch for training, counted from 1."""
    original = transformers.Trainer.get_train_dataloader

    def planted(trainer):
        collate, made = trainer.data_collator, iter(range(1, 10**9))

        def stalling(documents):
            if next(made) == batch:
                time.sleep(seconds)
            return collate(documents)

        trainer.data_collator = stalling
        try:
            return original(trainer)
        finally:
            trainer.data_collator = collate

    transformers.Trainer.get_train_dataloader = planted
