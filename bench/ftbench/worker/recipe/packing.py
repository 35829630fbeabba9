"""Padding-free batches: the examples of a batch in one row, with positions that begin anew in each.

Attention must not cross from one example to the next: transformers makes masks from such positions for most
decoders, and the flash attention kernels take them as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DataCollatorWithFlattening, PreTrainedModel

from ftbench.base.errors import ProfileError
from ftbench.plan.cell import Cell
from ftbench.worker.tasks.protocol import IGNORED

# Two examples of a few tokens, and how far the logits of the second may be from those that it has alone.
_FIRST, _SECOND = [3, 5, 7, 4], [6, 3, 5]
_NEAR = 1e-3


def flattening_collator() -> Any:
    """Return the collator of padding-free batches: token ids, positions, labels but each example's first."""
    return DataCollatorWithFlattening(return_tensors="pt", separator_id=IGNORED)


def refuse_cache(cell: Cell) -> None:
    """Raise ProfileError if a padding-free cell asks for a cache, with which examples of a row would be mixed."""
    if cell.packing == "padding-free" and cell.settings.get("use_cache"):
        raise ProfileError(
            "with a cache, attention crosses from one example of a padding-free row to the next",
            where="training.use_cache",
            got="true",
            expected="false, the default",
        )


def require_apart(model: PreTrainedModel, name: str) -> None:
    """Raise ProfileError if a model's outputs for one example of a row depend on another."""
    rows = [{"input_ids": ids, "labels": ids} for ids in (_FIRST, _SECOND)]
    collate = flattening_collator()
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            both, alone = (_logits(model, collate(some)) for some in (rows, rows[1:]))
    except (TypeError, ValueError) as error:
        raise _mixes(name, f"it takes no positions: {error}") from error
    finally:
        model.train(training)
    far = (both[len(_FIRST) :] - alone).abs().max() / alone.abs().max()
    if not far <= _NEAR:
        raise _mixes(
            name, f"the outputs of one example change by {float(far):.1%} with another before it"
        )


def _logits(model: PreTrainedModel, batch: dict[str, Any]) -> torch.Tensor:
    tensors = {k: v.to(model.device) for k, v in batch.items() if k != "labels"}
    # As the Trainer trains: with a cache, transformers takes positions for those of a text that goes on.
    logits: torch.Tensor = model(**tensors, use_cache=False).logits[0]
    return logits.float()


def _mixes(name: str, why: str) -> ProfileError:
    return ProfileError(
        f"this model does not keep the examples of a padding-free row apart: {why}",
        where="grid.packing",
        got=f"padding-free with {name}",
        expected="none or concatenate",
    )
