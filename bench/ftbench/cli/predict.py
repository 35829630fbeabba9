"""Commands before a run: they list a profile's cells, and predict their memory, time and cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING, FtbenchError, PredictionError, WorkloadError
from ftbench.cli.completion import selections
from ftbench.cli.options import (
    AssumeTorchOption,
    AttentionOption,
    ExpandableOption,
    GpuOption,
    JsonOption,
    NoCacheOption,
    OnlyOption,
    ProfileArgument,
    SetOption,
    forecast_of,
    open_console,
    selection_of,
    shown,
    version_of,
)
from ftbench.cli.subjects import (
    ArgOption,
    GpusOption,
    LargestOption,
    StepsOption,
    SubjectArgument,
    subject_of,
)
from ftbench.verbs.asking import asked_of
from ftbench.verbs.cards import calibrated_gpus, with_calibration_note
from ftbench.verbs.given import attention_of
from ftbench.verbs.subjects import ProfileSubject, ProgramSubject, Subject

if TYPE_CHECKING:
    from rich.console import Console

    from ftbench.estimation.answers import EstimatedFigure
    from ftbench.estimation.estimate import Estimate
    from ftbench.estimation.ranking import Ranking
    from ftbench.plan.gpus import Gpu
    from ftbench.records.prediction import Predictions

TrainSizeOption = Annotated[
    int | None,
    typer.Option("--train-size", metavar="N", min=1, help="The number of training examples."),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option("--max-length", metavar="N", min=1, help="The sequence length, in tokens."),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", metavar="N", min=1, help="Training examples per batch.")
]
PricesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--usd-per-hour",
        metavar="USD|CARD=USD",
        help="The price of a device: one for all, one for each --gpu, or l4=0.71."
        "  [default: dated list prices]",
    ),
]
RunsOption = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        metavar="RUN_DIR",
        help="Measured runs to extrapolate from.  [default: results/PROFILE if it exists]",
    ),
]


def plan(
    profile: ProfileArgument,
    overrides: SetOption = None,
    only: OnlyOption = None,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predict/--no-predict", help="Predict the peak memory of the tensors of each cell."
        ),
    ] = True,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the cells of a profile, their predicted memory, and what each length makes of the texts.

    Nothing is run. With a prediction, the data are read, and refused if a run would refuse them.
    """
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import plan_grid
    from ftbench.report.commands.plan import plan_json, plan_table, texts_table
    from ftbench.report.render.terminal import show_table

    loaded = load_profile(profile, overrides or ())
    grid, unresolved = plan_grid(loaded, selection_of(only))
    if unresolved is not None:
        print(f"ftbench: cells have no id yet: {unresolved}", file=sys.stderr)
    resolved = unresolved is None
    peaks = None
    if predicted and resolved:
        try:  # a plan fetches no data
            at_hand = grid.cells[0].data.source.kind != "hub"
            peaks = forecast_of(grid, (), data_at_hand=at_hand, cached=not no_cache)
        except WorkloadError:  # nor could it be run
            raise
        except FtbenchError as error:
            print(f"ftbench: no predicted memory: {error}", file=sys.stderr)
        else:
            reasons = {refused.reason for refused in peaks.refused}
            for text in (*peaks.notes, *(f"not predicted: {reason}" for reason in reasons)):
                print(f"ftbench: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps(plan_json(loaded, grid, resolved=resolved, predicted=peaks), indent=1))
        return
    console = open_console()
    show_table(console, plan_table(loaded, grid, resolved=resolved, predicted=peaks))
    if peaks is not None and (texts := texts_table(grid, peaks)) is not None:
        show_table(console, texts)


def predict(
    subject: SubjectArgument,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    expandable_segments: ExpandableOption = False,
    assume_torch: AssumeTorchOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    largest: LargestOption = None,
    several: GpusOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict peak GPU memory without a GPU.

    The subject is a profile, or a training loop of your own: FILE.py:FACTORY, with --arg for its arguments.

    With --gpu: also whether each cell fits on these cards, and the largest batch that fits; of a loop of your
    own the largest value of the argument that --largest names.
    """
    from ftbench.report.commands.prediction import predictions_json

    asked = subject_of(
        subject,
        only,
        overrides=overrides,
        arguments=arguments,
        steps=steps,
        gpus=several,
        largest=largest,
        cached=not no_cache,
    )
    gpus = calibrated_gpus(gpu or ())
    predictions = asked.predictions(
        gpus,
        attention=attention_of(attention),
        expandable_segments=expandable_segments,
        assume_torch=version_of(assume_torch),
    )
    predictions = with_calibration_note(predictions, gpus)
    if as_json:
        print(json.dumps(predictions_json(asked.grid, predictions, asked.name), indent=1))
    else:
        _show_predictions(asked, predictions, gpus)
    if predictions.refused or predictions.refused_cards:
        raise typer.Exit(EXIT_FINDING)


def _show_predictions(asked: Subject, predictions: Predictions, gpus: list[Gpu]) -> None:
    """Show the table of cells, the largest batches or values, and the notes; many cards in a table of their own."""
    from ftbench.report.commands.prediction import (
        LEGEND,
        growth_notes,
        largest_table,
        largest_values_table,
        notes_lines,
        predictions_table,
    )
    from ftbench.report.commands.prediction_cards import MOST_COLUMNS, many_cards_table
    from ftbench.report.render.terminal import show_table

    console = open_console()
    many = len(gpus) > MOST_COLUMNS
    names = [] if many else [card.name for card in gpus]
    show_table(console, predictions_table(asked.grid, predictions, names))
    if many:
        show_table(console, many_cards_table(asked.grid, predictions, gpus))
    elif isinstance(asked, ProfileSubject) and predictions.largest:
        show_table(console, largest_table(asked.grid, predictions, names))
    elif isinstance(asked, ProgramSubject) and predictions.largest_values:
        show_table(console, largest_values_table(asked.grid, predictions, names))
    for line in growth_notes(asked.grid, predictions):
        console.print(line, soft_wrap=True, markup=False)
    for note in (LEGEND, *notes_lines(predictions)):
        console.print(note, soft_wrap=True, style="dim")


def explain(
    subject: SubjectArgument,
    cell: Annotated[
        str | None,
        typer.Option(
            "--cell",
            metavar="KEY=VALUE,...",
            autocompletion=selections,
            help="The cell, by its values on the axes.  [default: the first cell]",
        ),
    ] = None,
    gpu: GpuOption = None,
    attention: AttentionOption = None,
    expandable_segments: ExpandableOption = False,
    assume_torch: AssumeTorchOption = None,
    overrides: SetOption = None,
    arguments: ArgOption = None,
    steps: StepsOption = None,
    several: GpusOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Break down the predicted memory peak of one cell.

    Shows the largest kinds of tensors, modules, operators and lines of code at the peak, and memory over the steps.
    """
    from ftbench.report.commands.prediction import predictions_json

    asked = subject_of(
        subject,
        cell,
        overrides=overrides,
        arguments=arguments,
        steps=steps,
        gpus=several,
        option="--cell",
        cached=not no_cache,
    )
    chosen, gpus = asked.first(), calibrated_gpus(gpu or ())
    predictions = chosen.predictions(
        gpus,
        explain=True,
        attention=attention_of(attention),
        expandable_segments=expandable_segments,
        assume_torch=version_of(assume_torch),
    )
    if predictions.refused:
        raise PredictionError(predictions.refused[0].reason)
    predictions = with_calibration_note(predictions, gpus)
    if as_json:
        print(json.dumps(predictions_json(chosen.grid, predictions, asked.name), indent=1))
        return
    if len(asked.grid.cells) > 1:
        print(
            f"ftbench: this is the first of {len(asked.grid.cells)} cells; --cell selects another",
            file=sys.stderr,
        )
    _show_explanation(predictions)


def _show_explanation(predictions: Predictions) -> None:
    """Show what the one cell's peak consists of, memory over the steps, and what these keep ever more of."""
    from ftbench.report.commands.prediction import (
        explanation_tables,
        growth_explained,
        moment_text,
        notes_lines,
        timeline_chart,
    )
    from ftbench.report.render.terminal import show_table

    (prediction,) = predictions.cells
    console, composition = open_console(), prediction.composition
    assert composition is not None
    for table in explanation_tables(prediction):
        show_table(console, table)
    console.print()
    for line in (*timeline_chart(composition), "", moment_text(composition)):
        console.print(line, soft_wrap=True)
    for line in growth_explained(prediction):
        console.print(line, soft_wrap=True, markup=False)
    for note in notes_lines(predictions):
        console.print(note, soft_wrap=True, style="dim")


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
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate time, memory, cost and accuracy of a run.

    Each figure has an interval. For an option that is not given, the largest value of the profile is taken.
    Several cards (or --gpu all) are ranked in one table. Without --gpu, the estimate is for the machine of the
    measured runs, or else for a calibrated CPU (`ftbench calibrate`). For a card without measured runs or a
    calibration, time is an interval from a model of kernels.
    """
    from ftbench.estimation.ranking import ranked
    from ftbench.plan.profile_file import load_profile
    from ftbench.report.commands.estimate import estimate_json
    from ftbench.report.commands.estimate_ranking import decision_lines, ranking_json
    from ftbench.verbs.estimate import estimated

    given = {
        "train_size": train_size,
        "max_length": max_length,
        "per_device_train_batch_size": batch,
    }
    found = estimated(
        load_profile(profile, overrides or ()),
        given,
        calibrated_gpus(gpu or ()),
        usd_per_hour or (),
        runs,
        attention_of(attention),
        asked_of(shown, cached=not no_cache),
    )
    if as_json:
        ranking = ranked(found)
        more = {"decision": [*decision_lines(found, ranking)], "ranking": ranking_json(ranking)}
        print(json.dumps(more | estimate_json(found), indent=1))
    else:
        _show_estimate(found)
    if found.refused:
        raise typer.Exit(EXIT_FINDING)


def _show_ranking(console: Console, ranking: Ranking, score: EstimatedFigure) -> None:
    """Show several devices in one table, the best first, with where prices are from."""
    from ftbench.report.commands.estimate_ranking import ranking_lines, ranking_table
    from ftbench.report.render.terminal import show_line, show_table

    show_table(console, ranking_table(ranking))
    console.print()
    for line in ranking_lines(ranking, score):
        show_line(console, line)


def _show_estimate(found: Estimate) -> None:
    """Show an estimate: the decision, its run, devices side by side, one table each unless they are many, notes."""
    from ftbench.estimation.ranking import ranked
    from ftbench.report.commands.estimate import LEGEND, device_table, headline
    from ftbench.report.commands.estimate_ranking import decision_lines
    from ftbench.report.commands.estimate_sentences import note_words
    from ftbench.report.commands.prediction_cards import MOST_COLUMNS
    from ftbench.report.render.terminal import show_line, show_table

    console, ranking = open_console(), ranked(found)
    for line in decision_lines(found, ranking):
        show_line(console, line)
    console.print()
    for line in headline(found):
        console.print(line, soft_wrap=True)
    if len(found.devices) > 1:
        _show_ranking(console, ranking, found.score)
    for device in found.devices if len(found.devices) <= MOST_COLUMNS else ():
        show_table(console, device_table(device, found.score))
        for note in device.notes:
            console.print(f"(!) {note_words(note)}", soft_wrap=True)
    console.print()
    for text in (LEGEND, *map(note_words, found.notes)):
        console.print(text, soft_wrap=True, style="dim")
