"""Method: the parameters that a fine-tune trains: all, the head, or LoRA's matrices and a new head.

Frozen parameters have no gradient and no optimizer state. Their modules stay in training mode, as the Trainer
sets them: dropout is active even in a frozen body.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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
    """Return the model with the method's parameters trainable, and the rest frozen.

    LoRA's matrices are initialised from torch's global generator. Raises WorkloadError if the model's head
    is not separate from its body, or if it has no such modules; ProfileError without peft.
    """
    if method == "full":
        return model
    if method == "head":
        if not task.new_head:
            raise WorkloadError(
                f"{task.name} has no new head to train alone: the model's own answers tokens",
                where="method",
                got="head",
                expected="full or lora",
            )
        return _head_only(model)
    return _with_lora(model, task, lora or LoraSettings())


def require_peft(methods: Iterable[Method]) -> None:
    """Raise ProfileError if LoRA is requested and peft is not installed."""
    if "lora" in methods and importlib.util.find_spec("peft") is None:
        raise ProfileError(
            "LoRA needs the package peft, which is not installed",
            where="method",
            got="lora",
            hint="python -m pip install 'ftbench[peft]'",
        )


def counts(parameters: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Return the number of elements of all parameters, and of the trained ones."""
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters), trained


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules with parameters outside the body: the new head.

    DistilBERT has two, `pre_classifier` and `classifier`. BERT has only `classifier`: its pooler belongs to
    the body, with pretrained weights. Raises WorkloadError if the model has no separate body.
    """
    body = model.base_model
    names = [
        name
        for name, module in model.named_children()
        if module is not body and next(module.parameters(), None) is not None
    ]
    if body is model or not names:
        raise WorkloadError(
            "the model has no head separate from its body",
            where="method",
            got=type(model).__name__,
            expected="a model with a body (`base_model`) and a head beside it",
        )
    return names


def _head_only(model: PreTrainedModel) -> PreTrainedModel:
    head_modules(model)
    model.base_model.requires_grad_(False)
    return model


def _is_packed_for_sharding(model: PreTrainedModel) -> bool:
    """Return whether weights of 4 bits are stored as floating-point numbers, which FSDP1 flattens with norms.

    So all must keep one type. TRL does not prepare such a model either (`is_sharded_qlora`, sft_trainer.py).
    """
    quantizer: Any = model.hf_quantizer
    storage = getattr(quantizer.quantization_config, "bnb_4bit_quant_storage", None)
    return storage is not None and bool(storage.is_floating_point)


def _with_lora(model: PreTrainedModel, task: Task, lora: LoraSettings) -> PeftModel:
    """Return the model frozen, with LoRA in its body, and its whole head trained if that is new.

    With `all-linear`, peft would adapt layers of a new head as well. It knows only one name of a head, and
    fails with DistilBERT's `pre_classifier`. A head that answers tokens stays as it is, and often is the embedding.
    """
    require_peft(["lora"])
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    head = head_modules(model) if task.new_head else []
    if getattr(model, "is_quantized", False) and not _is_packed_for_sharding(model):
        # norms, embeddings and head in float32, as in QLoRA
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    modules = lora.target_modules
    config = LoraConfig(
        task_type=TaskType[task.peft_task] if task.peft_task else None,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        exclude_modules=_within(head) if head else None,
        modules_to_save=head or None,
    )
    try:
        return get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise WorkloadError(
            f"peft rejects these modules: {error}",
            where="lora.target_modules",
            got=repr(modules),
            expected=f"all-linear, or some of {', '.join(_linear_names(model.base_model))}",
        ) from error


def _linear_names(body: nn.Module) -> list[str]:
    """Return the names of a model's linear modules without the names of their parents."""
    named = body.named_modules()
    return sorted(
        {name.rpartition(".")[2] for name, module in named if isinstance(module, nn.Linear)}
    )


def _within(modules: Iterable[str]) -> str:
    """Return a regular expression for the names of modules and of their submodules."""
    return rf"({'|'.join(modules)})(\..*)?"
