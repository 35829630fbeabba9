"""The recipe: fine-tuning of a model for a task with the Hugging Face Trainer.

Its steps: seed, model, arguments, Trainer, train, metrics, save, evaluate. The prepare stage has tokenised the
data.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ftbench.plan.cell import Cell
from ftbench.records.checkpoint import Checkpoint
from ftbench.records.collectives import Collectives
from ftbench.records.scores import Score
from ftbench.worker.measure.collectives import collectives_of
from ftbench.worker.measure.device import DTYPES
from ftbench.worker.measure.memory_meters import model_device
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.metered_trainer import MeteredTrainer
from ftbench.worker.recipe.method import counts, with_method
from ftbench.worker.recipe.metrics import ComputeScores
from ftbench.worker.recipe.model import load_model
from ftbench.worker.recipe.packing import flattening_collator
from ftbench.worker.recipe.quantization import QuantizedBody
from ftbench.worker.recipe.sharded_optimizer import with_sharded_optimizer
from ftbench.worker.recipe.tokenizer import load_tokenizer
from ftbench.worker.recipe.trackers import reports_open
from ftbench.worker.tasks.pool_labels import labels_of
from ftbench.worker.tasks.protocol import Task
from ftbench.worker.tasks.tasks import task_of

if TYPE_CHECKING:
    from peft import PeftModel


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a fine-tune: the Trainer's log, its losses, and the last evaluation.

    `scores` are those of the last evaluation, `attention` the implementation that ran. `model_device` is the
    device of the parameters: `cpu`, or the card's UUID. `parameters` includes LoRA's; `trainable_parameters` is
    the number of those that are trained. `collectives` are the times of communication, if there are several ranks.
    """

    log: list[dict[str, float]]
    train_loss: float
    evaluation: dict[str, float]
    scores: tuple[Score, ...]
    model_device: str
    parameters: int
    trainable_parameters: int
    checkpoint: Checkpoint | None = None
    attention: str | None = None
    collectives: Collectives | None = None


def training_arguments(
    cell: Cell, *, seed: int, output: str, use_cpu: bool, run_name: str | None = None
) -> TrainingArguments:
    """Return the cell's settings as `TrainingArguments`; raises ValueError if they contradict each other.

    `run_name` is the run's name for trackers, unless the settings have one.
    """
    settings = {"run_name": run_name, **cell.settings, "seed": seed}
    # Else the Trainer asks the signature of `forward`, and leaves labels out that only `**kwargs` take (Qwen3.5).
    return TrainingArguments(
        output_dir=output, disable_tqdm=True, use_cpu=use_cpu, label_names=["labels"], **settings
    )


def build_trainer(
    cell: Cell,
    labels: tuple[str, ...],
    arguments: TrainingArguments,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pools: tuple[Dataset, Dataset],
    *,
    phases: PhaseBook,
    steps: StepBook,
    callbacks: Sequence[TrainerCallback] = (),
) -> MeteredTrainer:
    """Return the Trainer of a cell; its collator pads a batch to its longest example."""
    task = task_of(cell.data)
    train, evaluation = pools
    flattened = cell.packing == "padding-free"
    collator = flattening_collator() if flattened else task.collator(tokenizer, model)
    trainer = MeteredTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        data_collator=collator,
        evaluation_collator=task.evaluation_collator(tokenizer, model),
        compute_metrics=ComputeScores(
            task, labels_of(train), labels, reduced=not cell.data.keep_logits
        ),
        preprocess_logits_for_metrics=None if cell.data.keep_logits else task.reduce_logits,
        callbacks=callbacks,
        phases=phases,
        steps=steps,
    )
    if cell.strategy == "zero1":
        with_sharded_optimizer(trainer)
    several = arguments.gradient_accumulation_steps > 1 or cell.num_processes > 1
    if several and not weighs_batches(model, task):
        trainer.model_accepts_loss_kwargs = False
    return trainer


def weighs_batches(model: PreTrainedModel | PeftModel, task: Task) -> bool:
    """Return whether a model divides its loss by the number of labels in all batches of a step, on all processes.

    Models say that they do if their `forward` takes any argument. The Trainer then does not divide by the number of
    accumulated batches, and multiplies by that of the processes (`Trainer.compute_loss`). Those that compute the
    loss themselves, as BERT's classifiers and T5, do not: loss and gradients would be multiples.
    """
    own: Any = model
    forward = type(own.get_base_model() if hasattr(own, "get_base_model") else own).forward
    return task.loss_per_token and "self.loss_function(" in inspect.getsource(forward)


def finetune(
    cell: Cell,
    labels: tuple[str, ...],
    pools: tuple[Dataset, Dataset],
    *,
    seed: int,
    output: str,
    use_cpu: bool,
    phases: PhaseBook,
    steps: StepBook,
    callbacks: Sequence[TrainerCallback] = (),
    run_name: str | None = None,
) -> Result:
    """Fine-tune one cell from start to end and return its result. The caller has entered a phase."""
    trainer = make_trainer(
        cell,
        labels,
        pools,
        seed=seed,
        output=output,
        use_cpu=use_cpu,
        phases=phases,
        steps=steps,
        callbacks=callbacks,
        run_name=run_name,
    )

    with reports_open(trainer):
        trained = trainer.train()  # evaluates and saves each epoch; loads the best model at the end

        phases.enter("save")
        trainer.log_metrics("train", trained.metrics)
        trainer.save_metrics("train", trained.metrics)
        trainer.save_model()
        trainer.save_state()

        evaluation = trainer.evaluate()
        trainer.log_metrics("eval", evaluation)
        trainer.save_metrics("eval", evaluation)
    return Result(
        trainer.state.log_history,
        trained.training_loss,
        evaluation,
        trainer.scores(),
        model_device(trainer.parameters()),
        *counts(trainer.parameters()),
        checkpoint=trainer.checkpoint,
        attention=trainer.attention,
        collectives=collectives_of(trainer.ddp),
    )


def _quantized_body(cell: Cell, arguments: TrainingArguments) -> QuantizedBody | None:
    """Return how a cell's body is quantized, on the device of the Trainer; None if it is not."""
    if cell.quantization == "none":
        return None
    body = QuantizedBody(DTYPES[cell.product_dtype], arguments.device, cell.quantization)
    if cell.strategy != "fsdp1":
        return body
    return dataclasses.replace(body, storage=DTYPES[cell.dtype])


def make_trainer(
    cell: Cell,
    labels: tuple[str, ...],
    pools: tuple[Dataset, Dataset],
    *,
    seed: int,
    output: str,
    use_cpu: bool,
    phases: PhaseBook,
    steps: StepBook,
    callbacks: Sequence[TrainerCallback] = (),
    run_name: str | None = None,
) -> MeteredTrainer:
    """Return the Trainer of a cell with its model loaded: the part of the recipe before training."""
    set_seed(seed)  # before the model, whose new head and LoRA are initialised from this generator
    tokenizer = load_tokenizer(cell.model)
    task = task_of(cell.data)
    arguments = training_arguments(
        cell, seed=seed, output=output, use_cpu=use_cpu, run_name=run_name
    )
    loaded = load_model(
        cell.model,
        labels,
        task,
        attn_implementation=cell.attn_implementation,
        dtype=cell.dtype,
        quantized=_quantized_body(cell, arguments),
        pad_token_id=tokenizer.pad_token_id,
    )
    trainer = build_trainer(
        cell,
        labels,
        arguments,
        with_method(loaded.model, cell.method, task, cell.lora),
        tokenizer,
        pools,
        phases=phases,
        steps=steps,
        callbacks=callbacks,
    )
    trainer.checkpoint, trainer.attention = loaded.checkpoint, loaded.attention
    return trainer
