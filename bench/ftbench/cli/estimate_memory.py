"""The command for those who have only a model's name: the memory of one shape on cards, and its profile."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ftbench.base.errors import PredictionError
from ftbench.cli.completion import tasks
from ftbench.cli.options import (
    AssumeTorchOption,
    GpuOption,
    JsonOption,
    SetOption,
    forecast_of,
    open_console,
    version_of,
)
from ftbench.verbs.cards import calibrated_gpus, with_calibration_note

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A hub id, a directory, a config.json, or architecture:NAME. Its weights are not read.",
    ),
]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task", metavar="NAME", help="The task, as a profile names it.", autocompletion=tasks
    ),
]
LengthOption = Annotated[
    int, typer.Option("--length", metavar="N", min=1, help="The length of all texts, in tokens.")
]
BatchOption = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, help="Training examples per batch.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="The type of the weights.")
]
OptimOption = Annotated[
    str, typer.Option("--optim", metavar="NAME", help="The optimizer, as the Trainer names it.")
]
MethodOption = Annotated[
    str, typer.Option("--method", metavar="NAME", help="What is trained: full, head or lora.")
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="MODEL",
        help="The tokenizer's model, for a model without one: any will do.",
    ),
]


def estimate_memory(
    model: ModelArgument,
    task: TaskOption = "text-classification",
    length: LengthOption = 512,
    batch: BatchOption = 1,
    dtype: DtypeOption = "float32",
    optim: OptimOption = "adamw_torch",
    method: MethodOption = "full",
    tokenizer: TokenizerOption = None,
    gpu: GpuOption = None,
    assume_torch: AssumeTorchOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the memory of fine-tuning a model, from its name alone.

    Without --gpu, for all cards of the catalogue. Also prints the profile that says the same, for
    `ftbench predict`.
    """
    from ftbench.plan.one_cell import NAME, Shape, one_cell_data, one_cell_profile, toml_text
    from ftbench.plan.resolve import resolve
    from ftbench.report.commands.estimate_memory import cards_table, legend, peak_text
    from ftbench.report.commands.prediction import notes_lines, predictions_json
    from ftbench.report.render.terminal import show_table

    shape = Shape(
        model=model,
        task=task,
        length=length,
        batch=batch,
        dtype=dtype,
        optim=optim,
        method=method,
        tokenizer=tokenizer,
    )
    data = one_cell_data(shape, overrides or ())
    profile = one_cell_profile(data)
    grid, gpus = resolve(profile), calibrated_gpus(gpu or ["all"])
    found = forecast_of(grid, gpus, explain=True, assume_torch=version_of(assume_torch))
    predictions = with_calibration_note(found, gpus)
    if predictions.refused:
        raise PredictionError(predictions.refused[0].reason)
    if as_json:
        told = predictions_json(grid, predictions, NAME) | {"profile_toml": toml_text(data)}
        print(json.dumps(told, indent=1))
        return
    console, (prediction, *_) = open_console(), predictions.cells
    show_table(console, cards_table(prediction, gpus))
    for line in (
        peak_text(prediction),
        "",
        *notes_lines(predictions),
        *legend(NAME, profile.workload.task),
        "",
    ):
        console.print(line, soft_wrap=True, markup=False)
    console.print(toml_text(data), soft_wrap=True, markup=False, end="")
