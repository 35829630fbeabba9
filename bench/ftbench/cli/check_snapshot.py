"""The command that explains a snapshot of a card's memory by the prediction of the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import PredictionError, ProfileError
from ftbench.cli.completion import selections
from ftbench.cli.options import (
    AssumeTorchOption,
    AttentionOption,
    JsonOption,
    SetOption,
    open_console,
    size_of,
    version_of,
)
from ftbench.cli.subjects import ArgOption, GpusOption, StepsOption, SubjectArgument, subject_of
from ftbench.verbs.cards import calibrated_gpu
from ftbench.verbs.given import attention_of

if TYPE_CHECKING:
    from ftbench.records.prediction import Predictions
    from ftbench.snapshot.result import Comparison

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A file of torch.cuda.memory._dump_snapshot, or _snapshot() as JSON; may be gzipped.",
    ),
]
CellOption = Annotated[
    str | None,
    typer.Option(
        "--cell",
        metavar="KEY=VALUE,...",
        autocompletion=selections,
        help="The cell that was run, by its values on the axes.  [default: the only cell]",
    ),
]
CardOption = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="The card of the run, as for predict.  [default: an Ampere card, without workspaces of kernels]",
    ),
]
DeviceOption = Annotated[
    int | None,
    typer.Option(
        "--device", metavar="N", min=0, help="The device.  [default: the one with events]"
    ),
]
ObservedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--observed",
        metavar="SIZE",
        help="A number that you have seen, such as 11.3GiB: says which figure it is. Repeatable.",
    ),
]


def check_snapshot(
    file: FileArgument,
    subject: SubjectArgument,
    cell: CellOption = None,
    gpu: CardOption = None,
    device: DeviceOption = None,
    observed: ObservedOption = None,
    attention: AttentionOption = None,
    assume_torch: AssumeTorchOption = None,
    overrides: SetOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    several: GpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a CUDA memory snapshot with the prediction of the same run.

    Allocation by allocation as far as their order agrees, and by line of code. The exit code is 0 if all that was
    recorded is as predicted, and 1 if something differs.
    """
    from ftbench.snapshot.compare import compare
    from ftbench.snapshot.snapshot_file import read_snapshot

    sizes = [size_of(text, "--observed") or 0 for text in observed or ()]
    card = [calibrated_gpu(gpu, "a snapshot is of one card")] if gpu else []
    snapshot = read_snapshot(file)
    number, memory = snapshot.device(device, str(file))
    asked = subject_of(
        subject,
        cell,
        overrides=overrides,
        arguments=arguments,
        steps=steps,
        gpus=several,
        option="--cell",
    )
    if len(asked.grid.cells) > 1:
        raise ProfileError(
            "a snapshot is of one cell",
            where="--cell",
            got=f"{len(asked.grid.cells)} cells",
            expected="the values on the axes of one, such as max_length=512",
        )
    predictions = asked.predictions(
        card,
        attention=attention_of(attention),
        expandable_segments=snapshot.expandable(memory),
        assume_torch=version_of(assume_torch),
        allocations=True,
    )
    if predictions.refused:
        raise PredictionError(predictions.refused[0].reason)
    found = compare(snapshot, number, predictions.cells[0], sizes)
    if as_json:
        from ftbench.report.commands.check_snapshot import comparison_json

        print(json.dumps(comparison_json(found, predictions, asked.name), indent=1))
    else:
        _show(found, predictions)
    raise typer.Exit(found.exit_code)


def _show(found: Comparison, predictions: Predictions) -> None:
    from ftbench.report.commands.check_snapshot import lines, tables
    from ftbench.report.commands.prediction import notes_lines
    from ftbench.report.render.terminal import show_table

    console = open_console()
    headline, *rest = lines(found)
    console.print(
        headline, markup=False, style="bold" if found.agrees else "bold red", soft_wrap=True
    )
    for table in tables(found):
        show_table(console, table)
    for line in rest:
        console.print(line, soft_wrap=True, markup=False)
    for note in notes_lines(predictions):
        console.print(note, soft_wrap=True, style="dim", markup=False)
