"""The memory events of a cell's fine-tune, traced from its own Trainer without data or a card.

`ftbench.worker.recipe.finetune.make_trainer` builds the Trainer of a run; here the same Trainer is built and
trained for a few steps inside a trace. No part of the recipe is duplicated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from datasets import Dataset
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    trainer_pt_utils,
)

from ftbench.base.errors import FtbenchError, PredictionError
from ftbench.plan.cell import Cell
from ftbench.plan.sources import ModelSource
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.bitsandbytes_package import BITSANDBYTES_OPTIMIZERS
from ftbench.prediction.trace.evaluation import Evaluation, what_is_kept, with_sizes
from ftbench.prediction.trace.events import EVALUATION, INPUT, Trace
from ftbench.prediction.trace.example_batches import ExampleBatches
from ftbench.prediction.trace.flash_attention import FLASH_ATTENTION_2
from ftbench.prediction.trace.packages import LOMO_OPTIMIZERS, load_packages, packages_on_card
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.source_line import error_is_ours, error_line
from ftbench.prediction.trace.tracer import STEPS, Target, group_of, tracing
from ftbench.prediction.trace.tracer_mode import Tracer
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.recipe.metered_trainer import MeteredTrainer
from ftbench.worker.recipe.tokenizer import load_tokenizer
from ftbench.worker.tasks.tasks import task_of
from ftbench.worker.two_step_pass import first_steps_of

# Settings that a trace does not cover, each with the reason.
_NOT_COVERED: dict[str, str] = {
    "torch_compile": "compiled graphs plan their memory themselves",
    "torch_compile_backend": "it sets torch_compile",
    "torch_compile_mode": "it sets torch_compile",
    "torch_empty_cache_steps": "the allocator's cache is emptied between steps",
    "deepspeed": "it uses several cards",
    "fp8": "8-bit training is not traced",
    "auto_find_batch_size": "the batch size is not known beforehand",
    "optim_target_modules": "optimizers with projected gradients are not traced",
}
COVERED_OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    *BITSANDBYTES_OPTIMIZERS,
    *LOMO_OPTIMIZERS,
)
COVERED_ATTENTION = ("eager", "sdpa", *FLASH_ATTENTION_2)
# Settings without effect on a card's memory that a trace cannot use: a loader's processes cannot send tensors
# without data (the Trainer would wait for ever), and transformers rejects TF32 without a card.
_SETTINGS: dict[str, Any] = {
    "tf32": None,
    "dataloader_num_workers": 0,
    "dataloader_persistent_workers": False,
    "dataloader_prefetch_factor": None,
}


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of the traced steps: the padded length of each step's batch, and the labels' names.

    A single length is that of all steps; with several, step i has the i-th.
    """

    lengths: tuple[int, ...]
    labels: tuple[str, ...] = ("0", "1")

    @classmethod
    def of(cls, cell: Cell, labels: tuple[str, ...] = ("0", "1")) -> Batches:
        """Return batches that all have the cell's largest length."""
        return cls((cell.max_length,), labels)


def refuse_uncovered(cell: Cell) -> None:
    """Raise PredictionError if a cell has a setting that a trace does not cover; the error names it."""
    settings = cell.settings
    for name, why in _NOT_COVERED.items():
        if settings.get(name):
            raise PredictionError(
                f"prediction does not cover this setting: {why}",
                where=f"training.{name}",
                got=repr(settings[name]),
            )
    optimizer = settings.get("optim")
    if optimizer is not None and optimizer not in COVERED_OPTIMIZERS:
        raise PredictionError(
            "prediction does not cover this optimizer",
            where="training.optim",
            got=repr(optimizer),
            expected=f"one of {', '.join(COVERED_OPTIMIZERS)}",
        )
    if cell.attn_implementation not in COVERED_ATTENTION:
        raise PredictionError(
            "prediction does not cover this attention: allocations inside its kernels are not traced",
            where="attn_implementation",
            got=cell.attn_implementation,
            expected=f"one of {', '.join(COVERED_ATTENTION)}",
        )


def trace_trainer(
    cell: Cell,
    target: Target | None = None,
    *,
    batches: Batches | None = None,
    steps: int = STEPS,
    evaluation: bool = True,
    watch: Callable[[Tracer], None] | None = None,
    ranks: Ranks | None = None,
) -> Trace:
    """Return the memory events of a cell's first steps, and of an evaluation after them.

    The model is built from its config; weights are not read. `watch` is given the tracer when training
    begins. Of a cell of several processes, `ranks` says which one is traced. Raises PredictionError for settings
    that are not covered.
    """
    refuse_uncovered(cell)
    target = target or Target()
    batches = batches or Batches.of(cell)
    load_packages(cell, target)
    cell = first_steps_of(_in_parallel(_without_weights(cell)), steps)
    pools = _pools(cell, batches, steps, on_cpu=target.device == "cpu")
    with (
        tempfile.TemporaryDirectory(prefix="ftbench-") as output,
        _states_of_its_own(),
        group_of(ranks),
        tracing(target, asks_for_card=ranks is not None, ranks=ranks) as tracer,
        _failures_named(tracer),
        _trainer_without_data(target, ranks),
        packages_on_card(cell, target, tracer),
    ):
        trainer = make_trainer(
            cell,
            batches.labels,
            pools,
            seed=cell.seed,
            output=output,
            use_cpu=ranks is None or target.device == "cpu",
            phases=PhaseBook([]),
            steps=StepBook(),
            callbacks=[_StepMarks(tracer)],
        )
        _prepare(trainer, in_order=len(batches.lengths) > 1)
        _tell_values(trainer, tracer, cell, len(batches.labels), padding=target.padding)
        if target.device == "cuda" and trainer.accelerator.mixed_precision == "fp16":
            _scale_gradients(trainer)
        if watch is not None:
            watch(tracer)
        tracer.begin()
        trainer.train()
        kept: dict[int, int] = {}
        if evaluation:
            tracer.phase(EVALUATION)
            with what_is_kept(tracer, Evaluation.of(cell)) as kept:
                trainer.evaluate()
        recorded = tracer.finish()
        del trainer
    return with_sizes(recorded, kept)


@contextlib.contextmanager
def _failures_named(tracer: Tracer) -> Iterator[None]:
    """Turn an error of the model's or the Trainer's code into a PredictionError; errors of our own code pass."""
    try:
        yield
    except FtbenchError:
        raise
    except Exception as error:
        if error_is_ours(error):
            raise
        failed = "" if tracer.failed is None else f" in {tracer.failed}"
        raise PredictionError(
            f"the model fails in a trace{failed}",
            where=error_line(error) or None,
            got=" ".join(f"{type(error).__name__}: {error}".split()),
            hint="if a run of it works, it needs data or more than text, which a trace has not",
        ) from error


def _without_weights(cell: Cell) -> Cell:
    """Return the cell with a model made from its config, without settings that a trace cannot use."""
    changes: dict[str, Any] = {"model": cell.model.model_copy(update={"weights": "random"})}
    if cell.attn_implementation in FLASH_ATTENTION_2:
        changes["attn_implementation"] = FLASH_ATTENTION_2[0]
    return cell.with_settings(**_SETTINGS).model_copy(update=changes)


def _in_parallel(cell: Cell) -> Cell:
    """Return the cell with the training arguments that share its model between processes."""
    return cell if cell.parallel is None else cell.with_settings(**cell.parallel.arguments)


@functools.lru_cache(maxsize=4)
def _tokenizer(model: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer that makes the examples of traces: reading one takes a tenth of a small trace's time."""
    return load_tokenizer(model)


def _pools(
    cell: Cell, batches: Batches, steps: int, *, on_cpu: bool = True
) -> tuple[Dataset, Dataset]:
    """Return examples of the given lengths: those of each step, and some for evaluation.

    There is one more batch than steps, since the loader fetches ahead.
    """
    tokenizer = _tokenizer(cell.model)
    lengths = [*batches.lengths, *[batches.lengths[-1]] * (steps + 1)][: steps + 1]
    distinct = sorted(set(lengths))
    task = task_of(cell.data)
    rows = Dataset.from_list(
        [task.example(tokenizer, "a " * length, length) for length in distinct]
    )
    examples = cell.examples_per_step * cell.num_processes
    numbers = [distinct.index(length) for length in lengths for _ in range(examples)]
    longest = [len(distinct) - 1] * Evaluation.of(cell).traced
    # In a trace of the CPU, an example's own tensors count. In a trace of a card they do not, and padding
    # tensors without data would read every token by itself.
    form = "torch" if on_cpu else None
    return rows.select(numbers).with_format(form), rows.select(longest).with_format(form)


class _StepMarks(TrainerCallback):
    """Tells the tracer when a step begins."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tracer.next_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step < state.max_steps:
            self._tracer.next_step()
        else:
            self._tracer.phase(INPUT)


def _prepare(trainer: MeteredTrainer, *, in_order: bool) -> None:
    """Make the Trainer do without data, and take the examples in their order if that is asked for."""
    trainer.remove_callback(PrinterCallback)  # it would print a loss without data
    trainer.compute_metrics = lambda *_, **__: {}  # outputs have no data to compute metrics from
    if in_order:
        sampler = SequentialSampler(trainer.train_dataset)  # type: ignore[arg-type]
        trainer._get_train_sampler = lambda *_: sampler  # type: ignore[method-assign]


def _tell_values(
    trainer: MeteredTrainer, tracer: Tracer, cell: Cell, classes: int, *, padding: bool
) -> None:
    """Make both collators of a Trainer tell the tracer of the values that batches can have."""
    task, tokenizer = task_of(cell.data), _tokenizer(cell.model)
    shifted = getattr(trainer.model, "prepare_decoder_input_ids_from_labels", None)
    evaluated = ExampleBatches(task, tokenizer, classes, padding, shifted)
    trained = dataclasses.replace(evaluated, padding=padding and cell.packing == "none")
    of_evaluation = trainer.evaluation_collator or trainer.data_collator
    # Tokens replaced at random have no number without data; those of an evaluation are replaced beforehand.
    of_training = trainer.data_collator if cell.packing == "padding-free" else of_evaluation
    trainer.data_collator = _with_values(of_training, tracer, trained)
    trainer.evaluation_collator = _with_values(of_evaluation, tracer, evaluated)


def _with_values(
    collate: Callable[..., Any], tracer: Tracer, examples: ExampleBatches
) -> Callable[..., Any]:
    """Return a collator that also tells the tracer of the values that batches can have."""

    def collated(rows: Any) -> Any:
        batch = collate(rows)
        with _disable_current_modes():
            values = examples.of(batch, len(rows))
        for name, of_batches in values.items():
            tracer.batch_values.know(batch[name], of_batches)
        return batch

    return collated


def _scale_gradients(trainer: Any) -> None:
    """Make the Trainer scale its loss for float16, as accelerate does on a card but not on a CPU."""
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")


@contextlib.contextmanager
def _states_of_its_own() -> Iterator[None]:
    """Restore accelerate's process-wide states at the end, since the caller's own Trainer uses them as well."""
    states: Sequence[Any] = (PartialState, AcceleratorState, GradientState)
    kept = [dict(state._shared_state) for state in states]
    environment = dict(os.environ)  # transformers 4.51 sets the mixed precision in it
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
        os.environ.clear()
        os.environ.update(environment)
        for state, values in zip(states, kept, strict=True):
            state._shared_state.clear()
            state._shared_state.update(values)


@contextlib.contextmanager
def _trainer_without_data(target: Target, ranks: Ranks | None) -> Iterator[None]:
    """Make the Trainer use the traced device, and accept outputs without data in evaluation."""
    device = target.torch_device if ranks is None else target.shown_device

    def place(original: Any) -> Any:
        def device_of(arguments: TrainingArguments) -> torch.device:
            original.func(arguments)
            PartialState._shared_state["device"] = device
            return device

        property_ = functools.cached_property(device_of)
        property_.__set_name__(TrainingArguments, "_setup_devices")
        return property_

    def outputs(original: Any) -> Any:
        def numpify(tensors: Any) -> Any:
            if isinstance(tensors, (list, tuple)):
                return type(tensors)(numpify(tensor) for tensor in tensors)
            return np.zeros(tuple(tensors.shape), dtype=np.float32)

        return numpify

    with contextlib.ExitStack() as stack:
        if target.device == "cuda":
            stack.enter_context(patches.replaced(TrainingArguments, "_setup_devices", place))
            stack.enter_context(
                patches.replaced(torch.amp.GradScaler, "_maybe_opt_step", _stepping)
            )
        stack.enter_context(patches.replaced(trainer_pt_utils, "nested_numpify", outputs))
        stack.enter_context(patches.replaced(accelerator, "pad_across_processes", _not_padded))
        yield


def _not_padded(original: Any) -> Any:
    """Return a replacement for padding outputs to the widest of all processes, which does nothing for one process.

    The original compares sizes that are on the device, and here have no values.
    """

    def pad(tensor: Any, **_: Any) -> Any:
        for leaf in tree_leaves(tensor):
            torch.tensor(leaf.shape, device=leaf.device)
        return tensor

    return pad


def _stepping(original: Any) -> Any:
    """Return an optimizer step that assumes finite gradients, since they have no values to check."""

    def step(scaler: Any, optimizer: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        return optimizer.step(*args, **kwargs)

    return step
