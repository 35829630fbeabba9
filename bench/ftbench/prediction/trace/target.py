"""Target: the device that a trace is made for, and what is asked about the data of its batches."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from ftbench.prediction.trace.eight_bit_products import MOST_OUTLIER_COLUMNS
from ftbench.prediction.trace.shown_device import SHOWN
from ftbench.records.prediction import AttentionKernel


@dataclasses.dataclass(frozen=True)
class Target:
    """The device that a trace is made for.

    `attention` forces one kernel of scaled dot product attention; None takes torch's choice for each call on a
    card of this compute capability. `padding` says whether batches have padding, for models that read this
    from the attention mask. `tokens` says how many are left where padding is removed, which depends on the data:
    all, the most that a batch of a shape can have, or one per example, the fewest. `multiprocessors` are those of
    the card (an A100 has 108), by which Liger-Kernel sizes a buffer. `outlier_columns` are
    those of a product with weights of 8 bits, which depend on the data too. `torch_version` is an older one, whose
    autograd keeps what is known of it (`older_torch`); None is the installed one.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    compute_capability: tuple[int, int] = (8, 0)
    attention: AttentionKernel | None = None
    padding: bool = True
    tokens: Literal["most", "fewest"] = "most"
    multiprocessors: int = 108
    outlier_columns: int = MOST_OUTLIER_COLUMNS
    torch_version: tuple[int, int] | None = None

    @property
    def torch_device(self) -> torch.device:
        """Return the device of the trace as torch's own code has it."""
        return torch.device("cpu", 0) if self.device == "cuda" else torch.device("cpu")

    @property
    def shown_device(self) -> torch.device:
        """Return the device as the traced code sees it, and on which it builds model, optimizer and batch."""
        return SHOWN if self.device == "cuda" else self.torch_device
