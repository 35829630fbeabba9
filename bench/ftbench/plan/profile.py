"""Profile: the request for a run. Frozen, validated when built, read from a TOML file.

A profile has four tables: `[workload]` (model and data), `[[grid]]` (blocks of axes),
`[training]` (fields of `transformers.TrainingArguments`) and `[run]` (how cells are run). A fifth,
`[lora]`, has the settings of LoRA for cells whose `method` is LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from ftbench.base.frozen import FrozenModel, Name, NonNegativeInt, PositiveInt, Scalar
from ftbench.plan.parallel import ChosenStrategy, Parallel, Strategy
from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.plan.settings import meaning_of

# The `reference` of a profile that was not read from a file.
IN_PYTHON = "a mapping in Python"
REQUIRED_AXES = ("max_length", "per_device_train_batch_size", "train_size")
Attention = Literal[
    "eager",
    "sdpa",
    "flash_attention_2",
    "kernels-community/flash-attn2",
    "flash_attention_3",
    "flex_attention",
]
Padding = Literal["max_length", "longest"]
# The first two have one label for each text or pair of texts: one of several classes, or a number.
# Token classification has a label for each word; the others have the texts' own tokens.
TaskName = Literal[
    "text-classification",
    "text-regression",
    "token-classification",
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
]
_LANGUAGE_TASKS: frozenset[TaskName] = frozenset({"causal-lm", "masked-lm", "seq2seq-lm"})
# Columns and settings that only some tasks read.
_ONLY_OF: Mapping[str, frozenset[TaskName]] = {
    "completion_column": frozenset({"causal-lm", "seq2seq-lm"}),
    "messages_column": frozenset({"causal-lm"}),
    "assistant_only_loss": frozenset({"causal-lm"}),
    "max_target_length": frozenset({"seq2seq-lm"}),
    "mlm_probability": frozenset({"masked-lm"}),
    "keep_logits": _LANGUAGE_TASKS | {"token-classification"},
}
_PACKED: frozenset[TaskName] = frozenset({"causal-lm"})
# How texts become rows of a batch: each its own; joined and cut into rows of `max_length` tokens; or all of a
# batch in one row without padding, in which attention does not cross from one to another.
Packing = Literal["none", "concatenate", "padding-free"]
# The trained parameters: all, the classification head only, or LoRA's matrices and the head.
Method = Literal["full", "head", "lora"]
# The type of the weights; gradients and the optimizer's state have that of the parameter that they belong to.
WeightsDtype = Literal["float32", "bfloat16", "float16"]
# The bits of a frozen body's weights: those of their type, or 4 (bitsandbytes' NF4).
Quantization = Literal["none", "nf4", "int8"]
# The C library's treatment of freed memory: its default, or keep all of it and return none to the kernel.
Malloc = Literal["default", "keep"]

# The recipe's own defaults; all other settings have those of transformers.
RECIPE: dict[str, Any] = {
    "num_train_epochs": 3,
    "learning_rate": 2e-5,
    "weight_decay": 0.01,
    "per_device_eval_batch_size": 8,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "steps",
    "logging_steps": 100,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "report_to": "none",
    "seed": 42,
}
# Defaults that differ for a task.
_RECIPE_OF: Mapping[TaskName, dict[str, Any]] = {
    "text-regression": {"metric_for_best_model": "loss"},
    "token-classification": {"metric_for_best_model": "loss"},
    "causal-lm": {"metric_for_best_model": "loss"},
    "masked-lm": {"metric_for_best_model": "loss"},
    "seq2seq-lm": {"metric_for_best_model": "loss"},
}


class Condition(FrozenModel):
    """A condition on the values of a column: `{ not = 3 }`, `{ not = ["a", "b"] }`, `{ from = 2000, to = 2010 }`.

    The file has the aliases of the fields: two are words of Python's.
    """

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    not_: Scalar | tuple[Scalar, ...] | None = Field(
        None, alias="not", description="The value, or the values, that a row must not have."
    )
    from_: StrictInt | StrictFloat | StrictStr | None = Field(
        None, alias="from", description="The least value of a range; it belongs to it."
    )
    to: StrictInt | StrictFloat | StrictStr | None = Field(
        None, description="The largest value of a range; it belongs to it."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.not_ is None and self.from_ is None and self.to is None:
            raise ValueError("a condition needs `not`, `from` or `to`")
        if self.from_ is not None and self.to is not None:
            if isinstance(self.from_, str) != isinstance(self.to, str):
                raise ValueError("`from` and `to` must both be numbers, or both texts")
            if self.from_ > self.to:  # type: ignore[operator]  # both are numbers, or both texts
                raise ValueError("`from` must not be greater than `to`")
        return self


# One value; several, of which any will do; or a condition.
Wanted = Scalar | Annotated[tuple[Scalar, ...], Field(min_length=1)] | Condition


class Workload(FrozenModel):
    """The model, the data set, and the rules by which examples are read from it."""

    task: TaskName = Field("text-classification", description="What the model learns.")
    model: Name = Field(
        description="A hub id, a directory, package:NAME/FOLDER, architecture:NAME, or offline:minilm-l6."
    )
    model_revision: StrictStr | None = Field(None, description="Branch, tag or commit of a hub id.")
    weights: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="`pretrained`; or `random`, the architecture alone: its cost is real, its scores mean nothing.",
    )
    weights_format: Literal["safetensors", "any"] = Field(
        "safetensors", description="`any` also reads pickled weights (torch.load, weights only)."
    )
    missing_weights: Literal["refused", "random"] = Field(
        "refused",
        description="`random`: parameters of the body that the checkpoint lacks may start random.",
    )
    config: dict[str, Scalar] = Field({}, description="Overrides of the model's config.")
    tokenizer: Name | None = Field(None, description="As `model`; the model's own if absent.")
    dataset: Name = Field(
        description="A hub id, a directory, CSV/TSV/JSON/Parquet files, package:NAME/FILE, or offline:imdb;"
        " synthetic:full-length (no data, for predictions)."
    )
    dataset_config: StrictStr | None = Field(
        None, description="A configuration of a hub data set, or of a copy of one in a directory."
    )
    dataset_revision: StrictStr | None = Field(
        None, description="Branch, tag or commit of a hub id."
    )
    text_column: StrictStr | tuple[StrictStr, StrictStr] = Field(
        "text", description="One column; or two, whose texts are read together as a pair."
    )
    label_column: StrictStr = Field("label", description="The column of the labels.")
    completion_column: StrictStr | None = Field(
        None,
        description="causal-lm: what follows the prompt in text_column and has the loss; seq2seq-lm: the target.",
    )
    messages_column: StrictStr | None = Field(
        None,
        description="causal-lm: conversations instead of texts, lists of { role, content }.",
    )
    assistant_only_loss: StrictBool = Field(
        False,
        description="causal-lm, with messages_column: the loss is of the assistant's tokens alone.",
    )
    max_target_length: PositiveInt = Field(
        128, description="seq2seq-lm: the most tokens of a target, the labels' length."
    )
    mlm_probability: Annotated[StrictFloat, Field(gt=0, lt=1)] = Field(
        0.15, description="masked-lm: the share of the tokens that are to be predicted."
    )
    keep_logits: StrictBool = Field(
        False,
        description="Keep all logits of an evaluation, as a Trainer does by itself, not two numbers per token.",
    )
    separator: Annotated[StrictStr, Field(min_length=1, max_length=1)] | None = Field(
        None, description="Between the fields of CSV files; found in the first row if absent."
    )
    encoding: Name | None = Field(
        None, description="Of CSV, JSON and text files; found in the bytes if absent."
    )
    where: dict[str, Wanted] = Field(
        {},
        description="Keep only the rows with these values: one, a list, { not = ... } or { from = ..., to = ... }.",
    )
    drop_rows_without_label: StrictBool = Field(
        False, description="Drop rows without a label; in a classification also those labelled -1."
    )
    drop_rows_without_text: StrictBool = Field(
        False, description="Drop rows whose text is missing, empty or only spaces."
    )
    drop_duplicates: StrictBool = Field(False, description="Drop rows whose text was seen before.")
    balanced: StrictBool = Field(False, description="As many rows of each class as the rarest has.")
    train_split: StrictStr = Field("train", description="The split of the training examples.")
    eval_split: StrictStr = Field(
        "auto",
        description="A split's name; `auto`: test, else validation, else `from-train`: the end of each class.",
    )
    eval_size: PositiveInt = Field(description="The number of evaluation examples.")
    shuffle_seed: NonNegativeInt = Field(
        42, description="The seed of the order from which the examples are taken."
    )

    @model_validator(mode="after")
    def _columns_are_of_the_task(self) -> Self:
        for name, tasks in _ONLY_OF.items():
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and self.task not in tasks:
                raise ValueError(f"{name}: the task {self.task} does not read it")
        if self.task == "seq2seq-lm" and self.completion_column is None:
            raise ValueError("completion_column: seq2seq-lm needs the column of the target")
        if self.completion_column is not None and self.messages_column is not None:
            raise ValueError("completion_column and messages_column: name one of them")
        if self.assistant_only_loss and self.messages_column is None:
            raise ValueError("assistant_only_loss: needs conversations, in a messages_column")
        single = self.task in _LANGUAGE_TASKS or self.task == "token-classification"
        if single and not isinstance(self.text_column, str):
            raise ValueError(f"text_column: {self.task} reads one column of texts")
        if self.balanced and not has_classes(self):
            raise ValueError(f"balanced: {self.task} has no classes to balance")
        return self

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        texts = (self.text_column,) if isinstance(self.text_column, str) else self.text_column
        if self.label_column in texts and self.task not in _LANGUAGE_TASKS:
            raise ValueError("text_column and label_column must be two columns")
        if len(set(texts)) < len(texts):
            raise ValueError("text_column: the two texts of a pair must be two columns")
        if self.completion_column in texts:
            raise ValueError("text_column and completion_column must be two columns")
        if self.separator in ('"', "\n", "\r"):
            raise ValueError("separator: a quote or the end of a line cannot separate fields")
        return self


def has_classes(workload: Workload) -> bool:
    """Return whether examples have classes that can be balanced: a label, or a completion that stands for one."""
    return workload.task == "text-classification" or workload.completion_column is not None


class GridBlock(FrozenModel):
    """One block of the grid: axes, crossed (`factorial`) or varied one at a time (`star`)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]

    max_length: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description=meaning_of("max_length")
    )
    per_device_train_batch_size: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description=meaning_of("per_device_train_batch_size")
    )
    train_size: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description=meaning_of("train_size")
    )
    attn_implementation: tuple[Attention, ...] = Field(
        (), description=meaning_of("attn_implementation")
    )
    padding: tuple[Padding, ...] = Field((), description=meaning_of("padding"))
    packing: tuple[Packing, ...] = Field((), description=meaning_of("packing"))
    method: tuple[Method, ...] = Field((), description=meaning_of("method"))
    dtype: tuple[WeightsDtype, ...] = Field((), description=meaning_of("dtype"))
    quantization: tuple[Quantization, ...] = Field((), description=meaning_of("quantization"))
    num_processes: tuple[PositiveInt, ...] = Field((), description=meaning_of("num_processes"))
    strategy: tuple[ChosenStrategy, ...] = Field((), description=meaning_of("strategy"))
    malloc: tuple[Malloc, ...] = Field((), description=meaning_of("malloc"))
    seed: tuple[NonNegativeInt, ...] = Field((), description=meaning_of("seed"))
    design: Literal["factorial", "star"] = Field(
        "factorial", description="Cross all axes, or vary one at a time around a centre (`star`)."
    )
    center: dict[str, Scalar] = Field(
        {}, description="A star's centre; the first values if absent."
    )

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of each axis by name, in the order of the block."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        values = named | (self.__pydantic_extra__ or {})
        return {k: v for k, v in values.items() if k not in ("design", "center") and v}

    @model_validator(mode="after")
    def _center_is_on_the_axes(self) -> Self:
        if self.center and self.design != "star":
            raise ValueError("center: only a block with design = 'star' has a centre")
        for name, value in self.center.items():
            if name not in self.axes:
                raise ValueError(f"center: {name!r} is not an axis of this block")
            if value not in self.axes[name]:
                raise ValueError(f"center: {value!r} is not among the values of {name}")
        return self


class LoraSettings(FrozenModel):
    """LoRA's settings, under the names of `peft.LoraConfig`; the head is always trained as well.

    The defaults are those of most published classifiers (rank 8, dropout 0.1) and twice the rank for
    `lora_alpha`. peft's own choice of modules, query and value, is made for a few architectures only
    (DistilBERT is not among them), so every linear layer of the body is adapted instead, which also
    loses least against full fine-tuning (Dettmers et al. 2023, "QLoRA", section 4).
    """

    r: PositiveInt = Field(8, description="The rank of LoRA's matrices.")
    lora_alpha: PositiveInt = Field(
        16, description="Their product is scaled by this number, divided by the rank."
    )
    lora_dropout: Annotated[StrictFloat, Field(ge=0, lt=1)] = Field(
        0.1, description="The share of their inputs that is set to zero in training."
    )
    target_modules: Name | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        "all-linear", description="Modules by name, a regular expression, or `all-linear`."
    )


class Run(FrozenModel):
    """How cells are run: replicates, limits, isolation, device, and what is kept."""

    replicates: PositiveInt = Field(
        1, description="Runs per cell, each with another seed; shows the spread of accuracy."
    )
    repeats: PositiveInt = Field(
        1, description="Runs per replicate, all with its seed; shows the spread of time."
    )
    cpu_tensors: StrictBool = Field(
        True,
        description="Measure the peak of the CPU tensors in a two-step pass after the cell (CPU only).",
    )
    timeout_s: Annotated[StrictInt | StrictFloat, Field(gt=0)] = Field(
        3600, description="Seconds after which a cell is ended."
    )
    isolation: Literal["auto", "forkserver", "spawn"] = Field(
        "auto",
        description="How a cell's process starts: forked from a server that has imported torch, or anew (`spawn`)."
        " `auto` forks on a CPU.",
    )
    device: StrictStr = Field("auto", description="auto, cpu, cuda, or a GPU's UUID.")
    order_seed: NonNegativeInt = Field(0, description="Seed of the random order of the cells.")
    keep_checkpoints: tuple[StrictStr, ...] = Field(
        (), description="Cells whose checkpoints are kept, each as KEY=VALUE,KEY=VALUE."
    )


class Profile(FrozenModel):
    """A named grid over a workload, with its training settings. `load_profile` reads one."""

    description: StrictStr = Field("", description="What the profile is for.")
    workload: Workload = Field(description="The model and the data set.")
    grid: Annotated[tuple[GridBlock, ...], Field(min_length=1)] = Field(
        description="The blocks of the grid, which is their union."
    )
    training: dict[str, Any] = Field(
        {}, description="Fields of transformers.TrainingArguments, for all cells."
    )
    padding: Padding = Field("max_length", description=meaning_of("padding"))
    packing: Packing = Field("none", description=meaning_of("packing"))
    attn_implementation: Attention = Field("sdpa", description=meaning_of("attn_implementation"))
    method: Method = Field("full", description=meaning_of("method"))
    dtype: WeightsDtype = Field("float32", description=meaning_of("dtype"))
    quantization: Quantization = Field("none", description=meaning_of("quantization"))
    num_processes: PositiveInt = Field(1, description=meaning_of("num_processes"))
    malloc: Malloc = Field("default", description=meaning_of("malloc"))
    lora: LoraSettings = Field(
        LoraSettings(), description="LoRA's settings, for cells with that method."
    )
    parallel: Parallel = Field(Parallel(), description="How several processes share a model.")
    run: Run = Field(Run(), description="How cells are run.")
    # Not written in a file: the name and the overrides given, which a report needs to reproduce a run.
    name: StrictStr = Field(description="The profile's name.")
    reference: StrictStr = Field("", description="What the command named: a name, or a path.")
    overrides: tuple[StrictStr, ...] = Field(
        (), description="Keys that the command line replaced, each as KEY=VALUE."
    )

    @model_validator(mode="after")
    def _texts_can_be_packed(self) -> Self:
        asked = {self.packing, *(value for block in self.grid for value in block.packing)}
        if asked != {"none"} and self.workload.task not in _PACKED:
            raise ValueError(f"packing: examples of the task {self.workload.task} cannot be joined")
        return self

    @property
    def strategy(self) -> Strategy:
        """Return how several processes share a model."""
        return self.parallel.strategy

    @property
    def settings(self) -> dict[str, Any]:
        """Return the training settings in force, without those of the axes."""
        return resolve_settings(self.training, self.workload.task)


def resolve_settings(
    given: Mapping[str, Any], task: TaskName = "text-classification"
) -> dict[str, Any]:
    """Return the recipe's training settings, overridden by those given.

    The best model is loaded at the end unless there is nothing to choose it from: no checkpoint, or
    no evaluation. It is the model with the highest accuracy, or in a regression the one with the lowest loss
    (correlations are not defined for a model whose predictions are constant). transformers assumes that
    higher is better for every metric whose name does not end in `loss`; `greater_is_better` corrects this.
    """
    settings = RECIPE | _RECIPE_OF.get(task, {}) | dict(given)
    best = SCORE_KINDS.get(str(settings["metric_for_best_model"]).removeprefix("eval_"))
    if best is not None and not best.higher_is_better:
        settings = {"greater_is_better": False} | settings
    if "load_best_model_at_end" not in given:
        strategies = (settings["save_strategy"], settings["eval_strategy"])
        settings["load_best_model_at_end"] = "no" not in strategies
    return settings
