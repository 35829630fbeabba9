"""Method: which of a model's parameters a fine-tune trains: all, the head, or LoRA's and the head.

What is frozen has no gradient and no optimizer state. Its modules stay in training mode, as the
Trainer has them: the dropout of a frozen body is on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.plan.profile import LoraSettings, Method
from ftbench.worker.tasks.protocol import Task

if TYPE_CHECKING:
    from peft import PeftModel


def with_method(
    model: PreTrainedModel, method: Method, task: Task, lora: LoraSettings | None = None
) -> PreTrainedModel | PeftModel:
    """Return the model with what the method trains set to be trained, and the rest frozen.

    LoRA's matrices are drawn from the generator's present state. Raises WorkloadError for a model
    whose head cannot be told from its body, or which has no such modules; ProfileError without peft.
    """
    if method == "full":
        return model
    if method == "head":
        return _head_only(model)
    return _with_lora(model, task, lora or LoraSettings())


def require_peft(methods: Iterable[Method]) -> None:
    """Raise ProfileError where LoRA is asked for and peft is not installed."""
    if "lora" in methods and importlib.util.find_spec("peft") is None:
        raise ProfileError(
            "LoRA needs the package peft, which is not installed",
            where="method",
            got="lora",
            hint="python -m pip install 'ftbench[peft]'",
        )


def counts(parameters: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Return how many numbers these parameters are, and how many of those are trained."""
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    return sum(one.numel() for one in parameters), trained


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules with parameters that are not in the body: the new head.

    DistilBERT has two, `pre_classifier` and `classifier`. BERT has `classifier` alone: its pooler is
    in the body, with pretrained weights. Raises WorkloadError where there is no body apart.
    """
    body = model.base_model
    names = [
        name
        for name, module in model.named_children()
        if module is not body and next(module.parameters(), None) is not None
    ]
    if body is model or not names:
        raise WorkloadError(
            "its head cannot be told from its body",
            where="method",
            got=type(model).__name__,
            expected="a model with a body (`base_model`) and a head beside it",
        )
    return names


def _head_only(model: PreTrainedModel) -> PreTrainedModel:
    head_modules(model)
    model.base_model.requires_grad_(False)
    return model


def _with_lora(model: PreTrainedModel, task: Task, lora: LoraSettings) -> PeftModel:
    """Return the model frozen, with LoRA in its body, and its head trained as a whole.

    peft would take a layer of the head for one to be adapted as well, where every linear one is, and
    knows but one name of it: DistilBERT's `pre_classifier` makes it fail.
    """
    require_peft(["lora"])
    from peft import LoraConfig, TaskType, get_peft_model

    head = head_modules(model)
    modules = lora.target_modules
    config = LoraConfig(
        task_type=TaskType[task.peft_task],
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        exclude_modules=_within(head),
        modules_to_save=head,
    )
    try:
        return get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise WorkloadError(
            f"peft refuses these modules: {error}",
            where="lora.target_modules",
            got=repr(modules),
            expected=f"all-linear, or some of {', '.join(_linear_names(model.base_model))}",
        ) from error


def _linear_names(body: nn.Module) -> list[str]:
    """Return the last names of a model's linear modules."""
    named = body.named_modules()
    return sorted({name.rpartition(".")[2] for name, one in named if isinstance(one, nn.Linear)})


def _within(modules: Iterable[str]) -> str:
    """Return the regular expression of the names of modules and of all that is in them."""
    return rf"({'|'.join(modules)})(\..*)?"
