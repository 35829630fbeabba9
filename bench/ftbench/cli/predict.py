"""Commands before a run: what a profile has, and what its cells are predicted to cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, FtbenchError, PredictionError
from ftbench.cli.options import (
    AttentionOption,
    ExpandableOption,
    GpuOption,
    JsonOption,
    OnlyOption,
    ProfileArgument,
    SetOption,
    attention_of,
    forecast_of,
    gpus_of,
    open_console,
    resolved_grid,
    selection_of,
)

if TYPE_CHECKING:
    from ftbench.estimate.estimate import Estimate

TrainSizeOption = Annotated[
    int | None, typer.Option("--train-size", min=1, help="Training examples.")
]
MaxLengthOption = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Tokens that an example is cut at.")
]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Examples per batch.")]
PricesOption = Annotated[
    list[float] | None,
    typer.Option(
        "--usd-per-hour", metavar="USD", help="What a device costs: one for all, or one each."
    ),
]
RunsOption = Annotated[
    Path | None,
    typer.Option("--runs", metavar="RUN_DIR", help="Runs to fit; results/PROFILE if it is there."),
]


def plan(
    profile: ProfileArgument,
    overrides: SetOption = None,
    only: OnlyOption = None,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predict/--no-predict", help="Show the predicted peak memory of tensors on a GPU."
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Print the cells of a profile, with the GPU memory they are predicted to need; runs nothing."""
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import plan_grid
    from ftbench.report.commands.plan import plan_json, plan_table
    from ftbench.report.render.terminal import show_table

    loaded = load_profile(profile, overrides or ())
    grid, unresolved = plan_grid(loaded, selection_of(only))
    if unresolved is not None:
        print(f"ftbench: cells have no id yet: {unresolved}", file=sys.stderr)
    resolved = unresolved is None
    peaks = None
    if predicted and resolved:
        try:  # a plan fetches no data
            peaks = forecast_of(grid, (), data_at_hand=grid.cells[0].data.source.kind != "hub")
        except FtbenchError as error:
            print(f"ftbench: no predicted memory: {error}", file=sys.stderr)
        else:
            reasons = {one.reason for one in peaks.refused}
            for text in (*peaks.notes, *(f"not predicted: {reason}" for reason in reasons)):
                print(f"ftbench: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps(plan_json(loaded, grid, resolved=resolved, predicted=peaks), indent=1))
        return
    show_table(open_console(), plan_table(loaded, grid, resolved=resolved, predicted=peaks))


def predict(
    profile: ProfileArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    expandable_segments: ExpandableOption = False,
    overrides: SetOption = None,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the peak GPU memory of every cell, and the largest batch that fits; needs no GPU."""
    from ftbench.report.commands.prediction import (
        LEGEND,
        largest_table,
        predictions_json,
        predictions_table,
    )
    from ftbench.report.render.terminal import show_table

    loaded, grid = resolved_grid(profile, overrides, only)
    gpus = gpus_of(gpu)
    predictions = forecast_of(
        grid,
        gpus,
        largest_batch=bool(gpus),
        attention=attention_of(attention),
        expandable_segments=expandable_segments,
    )
    if as_json:
        print(json.dumps(predictions_json(grid, predictions, loaded.name), indent=1))
    else:
        console, names = open_console(), [one.name for one in gpus]
        show_table(console, predictions_table(grid, predictions, names))
        if predictions.largest:
            show_table(console, largest_table(grid, predictions, names))
        for note in (LEGEND, *predictions.notes):
            console.print(note, soft_wrap=True, style="dim")
    if predictions.refused:
        raise typer.Exit(EXIT_FINDING)


def explain(
    profile: ProfileArgument,
    cell: Annotated[
        str | None, typer.Option("--cell", metavar="KEY=VALUE,...", help="The cell, by its axes.")
    ] = None,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    expandable_segments: ExpandableOption = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the predicted peak of one cell consists of, and its memory over the steps."""
    from ftbench.report.commands.prediction import (
        explanation_tables,
        moment_text,
        predictions_json,
        timeline_chart,
    )
    from ftbench.report.render.terminal import show_table

    loaded, grid = resolved_grid(profile, overrides, cell, option="--cell")
    one = grid.model_copy(update={"cells": grid.cells[:1]})
    gpus = gpus_of(gpu)
    predictions = forecast_of(
        one,
        gpus,
        explain=True,
        attention=attention_of(attention),
        expandable_segments=expandable_segments,
    )
    if predictions.refused:
        raise PredictionError(predictions.refused[0].reason)
    if as_json:
        print(json.dumps(predictions_json(one, predictions, loaded.name), indent=1))
        return
    console, found = open_console(), predictions.cells[0]
    if len(grid.cells) > 1:
        print(f"ftbench: the first of {len(grid.cells)} cells; --cell names one", file=sys.stderr)
    for table in explanation_tables(found):
        show_table(console, table)
    assert found.composition is not None
    console.print()
    for line in (*timeline_chart(found.composition), "", moment_text(found.composition)):
        console.print(line, soft_wrap=True)


def estimate(
    profile: ProfileArgument,
    train_size: TrainSizeOption = None,
    max_length: MaxLengthOption = None,
    batch: BatchOption = None,
    gpu: GpuOption = None,
    usd_per_hour: PricesOption = None,
    runs: RunsOption = None,
    attention: AttentionOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate time, memory, money and accuracy of a run that was not made, with intervals.

    Values that are not given are the profile's largest. On a card that no run was made on, time is a roofline
    interval; without --gpu the estimate is for the machine that runs were measured on.
    """
    from ftbench.estimate import estimate as estimates
    from ftbench.plan.grid import Grid
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.sources import resolve_data, resolve_model
    from ftbench.report.commands.estimate import estimate_json, nothing_to_estimate_on

    loaded = load_profile(profile, overrides or ())
    gpus, kernel = gpus_of(gpu), attention_of(attention)
    given = {
        "train_size": train_size,
        "max_length": max_length,
        "per_device_train_batch_size": batch,
    }
    model, data = resolve_model(loaded.workload), resolve_data(loaded.workload)
    target = estimates.target_of(loaded, model, data, given)
    folder = runs or Path("results") / loaded.name
    known = estimates.read_measured(folder, target, asked=runs is not None)
    if not gpus and not known.evidence:
        raise nothing_to_estimate_on(known)
    cards, on_cpu = estimates.devices_of(gpus, known)
    estimates.prices_of(usd_per_hour or (), len(gpus) or len(known.evidence))
    one = Grid(axes=(), cells=(target.cell,))
    found = estimates.estimate(
        target,
        gpus,
        known,
        on_cards=forecast_of(one, cards, largest_batch=True, work=True, attention=kernel)
        if cards
        else None,
        on_cpu=forecast_of(one, (), on_cpu=True) if on_cpu else None,
        usd_per_hour=usd_per_hour or (),
    )
    if as_json:
        print(json.dumps(estimate_json(found), indent=1))
    else:
        _show_estimate(found)
    if found.refused:
        raise typer.Exit(EXIT_FINDING)


def _show_estimate(found: Estimate) -> None:
    """Show an estimate: its run, one table per device, and the notes."""
    from ftbench.report.commands.estimate import LEGEND, device_table, headline
    from ftbench.report.commands.estimate_sentences import note_words
    from ftbench.report.render.terminal import show_table

    console = open_console()
    for line in headline(found):
        console.print(line, soft_wrap=True)
    for device in found.devices:
        show_table(console, device_table(device, found.score))
        for note in device.notes:
            console.print(f"(!) {note_words(note)}", soft_wrap=True)
    console.print()
    for text in (LEGEND, *map(note_words, found.notes)):
        console.print(text, soft_wrap=True, style="dim")
