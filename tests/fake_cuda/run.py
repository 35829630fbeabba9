"""Traces cases on the fake CUDA device: `python -m tests.fake_cuda.run CASES.json OUTCOMES.json`.

A process of its own: the device is there for as long as torch is, and what a test of the
CPU build would see of it is nobody's to untangle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.fake_cuda.build import load

_device = load()  # before torch

import torch  # noqa: E402

from ftbench.prediction.trace import patches, tracer, tracer_mode  # noqa: E402
from tests.fake_cuda.cases import Case, factory  # noqa: E402
from tests.fake_cuda.plain import plain  # noqa: E402

# at::SDPBackend
BACKENDS = {"math": 0, "flash": 1, "efficient": 2, "cudnn": 3}


@dataclasses.dataclass(frozen=True)
class CudaTarget(tracer.Target):
    """A target whose tensors say that they are on a CUDA device."""

    @property
    def torch_device(self) -> torch.device:
        """Return the fake CUDA device."""
        return torch.device("cuda", 0)


def without_emulation() -> None:
    """Take out of the tracer all that stands in for a CUDA device; torch's own C++ does that here.

    What stays is what a real card would not need either way: answers in place of data, the module's
    move, autograd's sums in place, and the type of fake parameters that optimizers do not know.
    """

    contexts = [
        (tracer, "cuda_operators"),
        (patches, "constants_move"),
        (patches, "scalars_assigned_from_host"),
        (patches, "autocast_moves"),
        (tracer, "tensors_on_card"),
        (tracer, "autocast_on_card"),
        (tracer, "card_available"),
        (tracer, "other_threads_refused"),  # autograd has a thread for the device
    ]
    for owner, name in contexts:
        patches.require(owner, name)
        setattr(owner, name, lambda *_, **__: contextlib.nullcontext())
    patches.require(tracer_mode, "results_on_card")
    tracer_mode.results_on_card = lambda func, output: output
    # Autocast and GradScaler turn themselves off where no driver answers.
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_: True


def outcome(case: Case) -> dict[str, Any]:
    """Return a case's trace as plain data, or the error that it ended with."""
    _device.fake_cuda_choose_attention(BACKENDS[case.kernel])
    target = CudaTarget(attention=case.kernel, padding=case.padding)
    try:
        return plain(tracer.trace(factory(case), steps=case.steps, target=target))
    except Exception:
        return {"error": traceback.format_exc()}


def main(cases: str, outcomes: str) -> None:
    """Trace every case of a file and write what came of each to another."""
    without_emulation()
    asked = [Case(**fields) for fields in json.loads(Path(cases).read_text())]
    Path(outcomes).write_text(json.dumps([outcome(case) for case in asked]))


if __name__ == "__main__":
    main(*sys.argv[1:])
