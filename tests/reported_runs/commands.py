"""The command that predicts a reported run, built from tables of its features; or the reason that there is none.

A run of a Trainer in a task that a profile has is `ftbench estimate-memory`, and each of its features an axis or a
training setting. Any other is `ftbench predict .../train.py:make_step`: the loop is one's own, and features are in
its code, which `programs/` has. Sizes are small, since a list of features names no model.
"""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

PROGRAM = (
    f"{Path(__file__).parent.relative_to(Path(__file__).parents[2])}/programs/train.py:make_step"
)
CARD = ("--gpu", "a100-40gb")

# Models of estimate-memory by task, or by the feature that names an architecture.
MODELS: Mapping[str, tuple[str, ...]] = {
    "causal": (
        *("architecture:llama", "--task", "causal-lm", "--length", "128", "--batch", "4"),
        *("--set", "workload.config.num_hidden_layers=2"),
    ),
    "seq-cls": ("architecture:bert", "--length", "128", "--batch", "8"),
    "seq2seq": (
        *("architecture:t5", "--task", "seq2seq-lm", "--length", "128", "--batch", "4"),
        *("--set", "workload.completion_column=target"),
    ),
    "deberta": ("architecture:deberta-v2", "--length", "128", "--batch", "4"),
    "longformer": ("architecture:longformer", "--length", "1024", "--batch", "2"),
}
_LORA = ("--method", "lora")
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "adafactor": ("--optim", "adafactor"),
    "amp16": ("--set", "training.fp16=true"),
    "ckpt": ("--set", "training.gradient_checkpointing=true"),
    "deberta": (),
    "flash": ("--set", "attn_implementation=flash_attention_2", "--set", "training.bf16=true"),
    "ga": ("--set", "training.gradient_accumulation_steps=4"),
    "longformer": (),
    "lora": _LORA,
    "opt8": ("--optim", "adamw_8bit"),
    "packing": ("--set", "packing=concatenate"),
    "quant4": (
        *_LORA,
        "--set",
        "quantization=nf4",
    ),  # weights of 4 bits are never trained themselves
    "triton": ("--set", "training.use_liger_kernel=true"),
    "truehalf": ("--dtype", "bfloat16"),
}
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "customloop": (),
    "evalaccum": ("--arg", "evaluated_batches=20"),
    "longformer": ("--arg", "architecture=longformer"),
    "dp-sgd": ("--arg", "private=true"),
    "quant4": ("--arg", "quant4=true", "--arg", "lora=true"),
    **{
        name: ("--arg", f"{name}=true")
        for name in (
            *("amp16", "chunkedce", "ckpt", "fairseqfp16", "lora", "multilabel", "offload", "oib"),
            *("opt8", "packing", "truehalf"),
        )
    },
}
# Tasks that the loop of `programs/` has.
OWN_TASKS = (
    *(
        "causal",
        "contrastive",
        "mlm",
        "multiple-choice",
        "qa",
        "rl",
        "seq-cls",
        "seq2seq",
        "speech",
    ),
    *("token-cls", "vision"),
)
_OWN_LOOP = frozenset({"customloop", "evalaccum"})
# Features and tasks that no command expresses.
NOT_EXPRESSED: Mapping[str, str] = {
    "apex": "apex's mixed precision and optimizers are CUDA extensions, which a trace cannot run",
    "compile": "compiled graphs plan their memory themselves",
    "dist": "a model in several processes, or sharded (DeepSpeed, FSDP), also on one card",
    "other": "the list does not say what was trained",
}
# What a command takes for granted that the list does not say.
ASSUMED: Mapping[str, str] = {
    "triton": "the kernels are Liger-Kernel's",
    "speech": "an encoder-decoder (CTC is refused: the size of its loss depends on the labels)",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """A row of the list: a number, the GPUs (`1` or `N`), the task, and what the run had."""

    number: str
    gpus: str
    task: str
    features: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Expressed:
    """A report's command, or the reason that it has none; and what the command assumes."""

    report: Report
    command: tuple[str, ...] | None
    reason: str = ""
    assumed: str = ""

    @property
    def text(self) -> str:
        """Return the command as it is typed, or the reason."""
        return f"not expressed: {self.reason}" if self.command is None else shlex.join(self.command)


def express(report: Report) -> Expressed:
    """Return the command that predicts a report's run, or the reason that there is none."""
    words = (report.task, *report.features)
    if reason := next((NOT_EXPRESSED[word] for word in words if word in NOT_EXPRESSED), None):
        return Expressed(report, None, reason)
    own = not _OWN_LOOP.isdisjoint(report.features) or report.task not in MODELS
    table = ARGUMENTS if own else SETTINGS
    if unknown := [feature for feature in report.features if feature not in table]:
        where = "a loop of one's own" if own else "a profile"
        return Expressed(report, None, f"{where} does not express {', '.join(unknown)} here")
    if own and report.task not in OWN_TASKS:
        return Expressed(report, None, f"no loop here trains {report.task}")
    assumed = "; ".join(ASSUMED[word] for word in words if word in ASSUMED)
    return Expressed(report, (_own if own else _with_settings)(report), assumed=assumed)


def _own(report: Report) -> tuple[str, ...]:
    features = dict.fromkeys(
        pair for feature in report.features for pair in _pairs(ARGUMENTS[feature])
    )
    words = (word for pair in features for word in pair)
    return ("ftbench", "predict", PROGRAM, "--arg", f"task={report.task}", *words, *CARD)


def _with_settings(report: Report) -> tuple[str, ...]:
    model = next((MODELS[name] for name in report.features if name in MODELS), MODELS[report.task])
    features = dict.fromkeys(
        pair for feature in report.features for pair in _pairs(SETTINGS[feature])
    )
    words = (word for pair in features for word in pair)
    return ("ftbench", "estimate-memory", *model, *words, *CARD)


def _pairs(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return options with their values; so an option that two features have is there once."""
    return [words[place : place + 2] for place in range(0, len(words), 2)]
