"""FLOPs of training on one example, as a polynomial in its length.

They depend on the method: frozen parameters have no gradient, and none is computed for them.

Counted by torch's `FlopCounterMode` on a real forward and backward pass, with eager attention:
the counter has no formula for the fused CPU kernel (it would count nothing), and for the fused CUDA kernels
it counts the recomputation in their backward pass, which is not useful work.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from ftbench.worker.measure.steps import example_flops

if TYPE_CHECKING:
    from peft import PeftModel

# The features of an artificial example of a length.
Example = Callable[[int], dict[str, Any]]
# An example's FLOPs are quadratic in its length; three lengths determine the polynomial.
_LENGTHS = (8, 16, 24)
_SHORT_LENGTHS = (1, 2, 3)  # for grids with shorter sequences


def one_class(length: int) -> dict[str, Any]:
    """Return the features of an example of this length, of the first class."""
    return {"input_ids": [1] * length, "attention_mask": [1] * length, "labels": 0}


def count_flops(
    model: PreTrainedModel | PeftModel, length: int, example: Example = one_class
) -> int:
    """Return the FLOPs of one forward and backward pass over the example of this length."""
    inputs = {
        name: torch.tensor([values], device=model.device)
        for name, values in example(length).items()
    }
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    model.zero_grad()
    return int(counter.get_total_flops())


def fit_flops(
    model: PreTrainedModel | PeftModel, longest: int, example: Example = one_class
) -> tuple[int, int, int] | None:
    """Return (c0, c1, c2) with FLOPs = c0 + c1*S + c2*S^2, exact; None if there is no such polynomial.

    The polynomial through three short lengths is checked against a count at the longest. Raises
    the model's own error for inputs that it cannot read.
    """
    lengths = _LENGTHS if longest >= _LENGTHS[-1] else _SHORT_LENGTHS
    coefficients = _quadratic(lengths, [count_flops(model, length, example) for length in lengths])
    if any(c.denominator != 1 for c in coefficients):
        return None
    c0, c1, c2 = (int(c) for c in coefficients)
    return (
        (c0, c1, c2)
        if example_flops((c0, c1, c2), longest) == count_flops(model, longest, example)
        else None
    )


def _quadratic(xs: tuple[int, int, int], ys: list[int]) -> tuple[Fraction, Fraction, Fraction]:
    """Return the coefficients of the parabola through three points (Newton's form, expanded)."""
    (x0, x1, x2), (y0, y1, y2) = xs, ys
    d01, d12 = Fraction(y1 - y0, x1 - x0), Fraction(y2 - y1, x2 - x1)
    c2 = (d12 - d01) / (x2 - x0)
    c1 = d01 - c2 * (x0 + x1)
    return y0 - c1 * x0 - c2 * x0**2, c1, c2
