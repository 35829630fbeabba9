"""The command that searches for the cheapest configuration that fits on a card, or on several of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, ProfileError
from ftbench.cli.completion import cards, selections
from ftbench.cli.options import (
    AttentionOption,
    ExpandableOption,
    JsonOption,
    ProfileArgument,
    SetOption,
    open_console,
    selection_of,
    shown,
)
from ftbench.cli.subjects import GpusOption, numbers_of_gpus
from ftbench.verbs.asking import predictor
from ftbench.verbs.cards import calibrated_gpu, calibration_note
from ftbench.verbs.given import attention_of

if TYPE_CHECKING:
    from ftbench.plan.cell import Cell
    from ftbench.plan.grid import Grid
    from ftbench.records.fit_search import FitAnswer, FitRequest

CardOption = Annotated[
    str,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="The card: its name, or a size such as 24GiB.",
        autocompletion=cards,
    ),
]
OverOption = Annotated[
    list[str] | None,
    typer.Option(
        "--over",
        metavar="NAME=VALUE,...",
        help="Search these values of a setting, too, such as method=full,lora; repeatable."
        "  [default: strategy=ddp,fsdp2 and gradient_checkpointing=false,true]",
    ),
]


def fit_search(
    profile: ProfileArgument,
    gpu: CardOption,
    several: GpusOption = None,
    over: OverOption = None,
    cell: Annotated[
        str | None,
        typer.Option(
            "--cell",
            metavar="KEY=VALUE,...",
            autocompletion=selections,
            help="The cell that is to fit, by its values on the axes.  [default: the first cell]",
        ),
    ] = None,
    attention: AttentionOption = None,
    expandable_segments: ExpandableOption = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest configuration of a profile's cell that fits on a card.

    Cheapest is: the fewest cards, then the least change of what is learned, the profile's batch size, no gradient
    checkpointing, the least communication, the largest batch. Cheaper ones that differ in one setting are shown
    with what they need.
    """
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import resolve
    from ftbench.plan.variants import axes_searched, variants
    from ftbench.records.fit_search import FitRequest
    from ftbench.report.commands.fit_search import fit_json

    loaded = load_profile(profile, overrides or ())
    grid = resolve(loaded)
    chosen = _first_of(grid, cell)
    numbers = numbers_of_gpus(several) if several else ()
    axes = axes_searched(loaded, chosen, over or (), numbers)
    found, contradicting = variants(loaded, grid, chosen, axes)
    if not found:
        raise ProfileError("no combination of these settings goes together", where="--over")
    card = calibrated_gpu(gpu, "the search is for one kind of card")
    request = FitRequest(
        variants=tuple(found),
        gpu=card,
        attention=attention_of(attention),
        expandable_segments=expandable_segments,
    )
    answer = _searched(request)
    if (note := calibration_note([card])) is not None:
        answer = answer.model_copy(update={"notes": (*answer.notes, note)})
    if as_json:
        data = fit_json(grid, chosen, answer, loaded.name, contradicting)
        print(json.dumps(data, indent=1))
    else:
        _show(grid, chosen, answer, contradicting)
    if answer.found is None:
        raise typer.Exit(EXIT_FINDING)


def _first_of(grid: Grid, cell: str | None) -> Cell:
    """Return the first cell that --cell selects; stderr says if there are others."""
    chosen = grid.only(selection_of(cell, option="--cell"), option="--cell").cells
    if len(chosen) > 1:
        print(
            f"ftbench: this is the first of {len(chosen)} cells; --cell selects another",
            file=sys.stderr,
        )
    return chosen[0]


def _searched(request: FitRequest) -> FitAnswer:
    """Return a worker's answer; its progress is shown on stderr."""
    from ftbench.execute.prediction_worker import processes, searched

    request = request.model_copy(update={"processes": processes()})
    with shown() as on_progress:
        return searched(request, predictor(), on_progress=on_progress)


def _show(grid: Grid, cell: Cell, answer: FitAnswer, contradicting: int) -> None:
    """Show the configuration, its lines for the profile, its neighbours, and the notes."""
    from ftbench.report.commands.fit_search import (
        configuration_table,
        fit_notes,
        neighbours_table,
        profile_lines,
    )
    from ftbench.report.render.terminal import show_table

    console = open_console()
    if answer.found is not None:
        show_table(console, configuration_table(cell, answer))
        console.print()
        for line in profile_lines(grid, cell, answer):
            console.print(line, soft_wrap=True, markup=False)
    if answer.neighbours:
        show_table(console, neighbours_table(answer))
    for note in fit_notes(answer, contradicting):
        console.print(note, soft_wrap=True, style="dim", markup=False)
