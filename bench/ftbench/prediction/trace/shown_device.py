"""The device of a trace under the name that traced code knows it by."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

SHOWN = torch.device("cuda", 0)


def place(device: Any, traced: torch.device) -> Any:
    """Return the traced device for each way of naming the card (`cuda`, `cuda:0`, 0), else what was given."""
    if isinstance(device, bool) or not isinstance(device, (Integral, str, torch.device)):
        return device
    if isinstance(device, str) and not device.startswith("cuda"):
        return device
    named = (
        torch.device("cuda", int(device)) if isinstance(device, Integral) else torch.device(device)
    )
    return traced if named.type == "cuda" and not named.index else named
