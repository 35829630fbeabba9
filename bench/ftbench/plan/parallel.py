"""Parallel: how the processes of a run on several GPUs share a model, in the words of accelerate's config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool

from ftbench.base.frozen import FrozenModel, Name, PositiveInt
from ftbench.plan.settings import meaning_of

Strategy = Literal["ddp", "zero1", "fsdp2", "fsdp1"]
_OF_DEEPSPEED = (
    "DeepSpeed's engine is neither predicted nor run. What its stages shard, these do: stage 3 fsdp2;"
    " stage 2 fsdp2 with reshard_after_forward = false; stage 1 zero1"
)
_REFUSED = {
    **dict.fromkeys(("deepspeed", "zero2", "zero3"), _OF_DEEPSPEED),
    "megatron": "Megatron-LM is neither predicted nor run",
    "tp": "tensor parallel plans are predicted for a program (FILE.py:FACTORY), not for a profile",
    "fsdp": "its two generations differ in memory: write fsdp2, or fsdp1",
}


def _known(value: Any) -> Any:
    """Return a strategy; raises ValueError for one that is known and refused."""
    reason = _REFUSED.get(value) if isinstance(value, str) else None
    if reason is not None:
        raise ValueError(f"{value}: {reason}")
    return value


ChosenStrategy = Annotated[Strategy, BeforeValidator(_known)]
# Those without sharded parameters: nothing of FSDP's options is theirs.
_WHOLE = ("ddp", "zero1")
_VERSIONS = {"fsdp2": 2, "fsdp1": 1}


class Parallel(FrozenModel):
    """The strategy, and options of FSDP; each that is None is left to transformers' default."""

    strategy: ChosenStrategy = Field("ddp", description=meaning_of("strategy"))
    reshard_after_forward: StrictBool | Name | None = Field(
        None,
        description="FSDP2: whether parameters are sharded again after forward. FSDP1: a sharding strategy,"
        " full_shard or shard_grad_op.",
    )
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"] | None = (
        Field(None, description="FSDP: which modules are sharded as units of their own.")
    )
    transformer_layer_cls_to_wrap: tuple[Name, ...] | None = Field(
        None, description="FSDP: the classes of these modules; the model's own choice if absent."
    )
    min_num_params: PositiveInt | None = Field(
        None, description="FSDP, SIZE_BASED_WRAP: the fewest parameters of such a unit."
    )
    activation_checkpointing: StrictBool | None = Field(
        None,
        description="FSDP: compute activations again in the backward pass instead of keeping them.",
    )
    forward_prefetch: StrictBool | None = Field(
        None, description="FSDP1: gather the next unit's parameters during a forward pass."
    )
    backward_prefetch: Literal["BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"] | None = Field(
        None, description="FSDP1: when a backward pass gathers the next unit's parameters."
    )
    use_orig_params: StrictBool | None = Field(
        None, description="FSDP1: show the optimizer the model's own parameters, not flat ones."
    )
    sync_module_states: StrictBool | None = Field(
        None, description="FSDP1: send the first process's parameters to all others at the start."
    )
    limit_all_gathers: StrictBool | None = Field(
        None, description="FSDP1: let the host wait, so that few units are gathered at once."
    )

    def with_strategy(self, strategy: Strategy) -> Parallel:
        """Return the same with another strategy, without the options that it does not have."""
        if strategy in _WHOLE:
            return Parallel(strategy=strategy)
        dropped = _OF_FSDP1 if strategy == "fsdp2" else ()
        return self.model_copy(update={"strategy": strategy, **dict.fromkeys(dropped)})

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the fields of `transformers.TrainingArguments` that ask for it: none for DDP, their default.

        ZeRO-1 is DDP to them: its optimizer is made by the recipe.
        """
        if self.strategy in _WHOLE:
            return {}
        given = self.model_dump(mode="json", exclude={"strategy"}, exclude_none=True)
        return {"fsdp": True, "fsdp_config": {"version": _VERSIONS[self.strategy], **given}}


_OF_FSDP1 = (
    "forward_prefetch",
    "backward_prefetch",
    "use_orig_params",
    "sync_module_states",
    "limit_all_gathers",
)
