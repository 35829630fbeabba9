"""The worker that times steps in turns: in a Trainer with our meters, and in a bare one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ftbench.records.messages import Progress
from ftbench.records.selfcheck import Overhead, OverheadRequest
from ftbench.worker.measure.device import synchronizer, torch_device
from ftbench.worker.measure.memory_meters import MemoryMeters
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.metered_trainer import MeteredTrainer
from ftbench.worker.selfcheck.programs import encoder, random_tokens

_BATCH, _LENGTH = 8, 64


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Overhead` of rounds whose sides take turns in who is first, as JSON data."""
    request = OverheadRequest.model_validate(body)
    device = torch_device("cuda")
    torch.manual_seed(0)
    model, folder = encoder("sdpa").to(device), Path(request.folder)
    sides: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for number in range(request.rounds):
        emit(Progress(phase=f"round {number + 1} of {request.rounds}"))
        for metered in (True, False) if number % 2 == 0 else (False, True):
            run = _metered if metered else _bare
            sides[metered].append(run(model, device, folder, request.steps))
    return Overhead(metered_s=tuple(sides[True]), bare_s=tuple(sides[False])).model_dump(
        mode="json"
    )


class _Ends(TrainerCallback):
    """Notes when each step has ended on the device."""

    def __init__(self, device: torch.device) -> None:
        self._wait = synchronizer(device)
        self._ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._wait()
        self._ends.append(time.perf_counter())

    def seconds(self) -> tuple[float, ...]:
        """Return the seconds from one end to the next."""
        return tuple(later - end for end, later in zip(self._ends, self._ends[1:], strict=False))


class _Texts(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Random texts of one length, the same for both sides."""

    def __init__(self, number: int) -> None:
        self._tokens = random_tokens("cpu", number, _LENGTH)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        tokens = self._tokens[place]
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "labels": torch.tensor(place % 2),
        }


def _arguments(folder: Path, steps: int) -> dict[str, Any]:
    return {
        "args": TrainingArguments(
            output_dir=str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=_BATCH,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        "train_dataset": _Texts(steps * _BATCH),
    }


def _bare(model: Any, device: torch.device, folder: Path, steps: int) -> tuple[float, ...]:
    ends = _Ends(device)
    Trainer(model=model, callbacks=[ends], **_arguments(folder, steps)).train()
    return ends.seconds()


def _metered(model: Any, device: torch.device, folder: Path, steps: int) -> tuple[float, ...]:
    """Return the steps' seconds under all meters of a cell, the sampler beside this process among them."""
    meters, ends = MemoryMeters(device), _Ends(device)
    phases = PhaseBook(meters.meters, synchronize=synchronizer(device))
    trainer = MeteredTrainer(
        model=model,
        phases=phases,
        steps=StepBook(),
        callbacks=[ends],
        **_arguments(folder, steps),
    )
    trainer.train()
    phases.enter(None)
    meters.close(str(folder / "samples.parquet"))
    return ends.seconds()
