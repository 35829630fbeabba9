"""The command line: the only place that prints, and the only one that decides the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from bench import __version__
from bench.errors import (
    EXIT_FINDING,
    EXIT_INTERRUPTED,
    FtbenchError,
    PredictionError,
    ProfileError,
    WorkloadError,
)

PLAIN_WIDTH = 200  # columns where the output is no terminal: a log is not wrapped
DEFAULT_FORMATS = ("md", "html", "csv")

app = typer.Typer(
    name="ftbench",
    help="Run a complete fine-tune over a grid; measure accuracy, time and peak memory of every cell.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ProfileArgument = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A name under profiles/, or a path to a TOML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a dotted key with a TOML value; repeatable."
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="KEY=VALUE,...", help="Only the cells with these values."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


def main() -> None:
    """Run the command line; every error becomes a message on stderr and an exit code."""
    try:
        app()
    except FtbenchError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, code: int) -> NoReturn:
    print(f"ftbench: {message}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Hold the options that come before a subcommand."""
    if version:
        print(f"ftbench {__version__}")
        raise typer.Exit


@app.command()
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
    from bench.plan import plan_grid, plan_json, plan_table
    from bench.profile import load_profile
    from bench.report.terminal import show_table

    loaded = load_profile(profile, overrides or ())
    grid, unresolved = plan_grid(loaded, _selection(only))
    if unresolved is not None:
        print(f"ftbench: cells have no id yet: {unresolved}", file=sys.stderr)
    resolved = unresolved is None
    peaks = None
    if predicted and resolved:
        try:  # a plan fetches no data
            peaks = _forecast(grid, (), data_at_hand=grid.cells[0].data.source.kind != "hub")
        except FtbenchError as error:
            print(f"ftbench: no predicted memory: {error}", file=sys.stderr)
        else:
            reasons = {one.reason for one in peaks.refused}
            for text in (*peaks.notes, *(f"not predicted: {reason}" for reason in reasons)):
                print(f"ftbench: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps(plan_json(loaded, grid, resolved=resolved, predicted=peaks), indent=1))
        return
    show_table(_console(), plan_table(loaded, grid, resolved=resolved, predicted=peaks))


GpuOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="A card of the catalogue, or a memory size such as 24GiB; repeatable.",
    ),
]
AttentionOption = Annotated[
    str | None,
    typer.Option(
        "--attention",
        metavar="KERNEL",
        help="math, efficient, flash or cudnn; else each card's own choice.",
    ),
]
ExpandableOption = Annotated[
    bool, typer.Option("--expandable-segments", help="As with PYTORCH_ALLOC_CONF set so.")
]


@app.command()
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
    from bench.report.prediction import (
        LEGEND,
        largest_table,
        predictions_json,
        predictions_table,
    )
    from bench.report.terminal import show_table

    loaded, grid = _resolved(profile, overrides, only)
    gpus = _gpus(gpu)
    predictions = _forecast(
        grid,
        gpus,
        largest_batch=bool(gpus),
        attention=_attention(attention),
        expandable_segments=expandable_segments,
    )
    if as_json:
        print(json.dumps(predictions_json(grid, predictions, loaded.name), indent=1))
    else:
        console, names = _console(), [one.name for one in gpus]
        show_table(console, predictions_table(grid, predictions, names))
        if predictions.largest:
            show_table(console, largest_table(grid, predictions, names))
        for note in (LEGEND, *predictions.notes):
            console.print(note, soft_wrap=True, style="dim")
    if predictions.refused:
        raise typer.Exit(EXIT_FINDING)


@app.command()
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
    from bench.report.prediction import (
        explanation_tables,
        moment_text,
        predictions_json,
        timeline_chart,
    )
    from bench.report.terminal import show_table

    loaded, grid = _resolved(profile, overrides, cell, option="--cell")
    one = grid.model_copy(update={"cells": grid.cells[:1]})
    gpus = _gpus(gpu)
    predictions = _forecast(
        one,
        gpus,
        explain=True,
        attention=_attention(attention),
        expandable_segments=expandable_segments,
    )
    if predictions.refused:
        raise PredictionError(predictions.refused[0].reason)
    if as_json:
        print(json.dumps(predictions_json(one, predictions, loaded.name), indent=1))
        return
    console, found = _console(), predictions.cells[0]
    if len(grid.cells) > 1:
        print(f"ftbench: the first of {len(grid.cells)} cells; --cell names one", file=sys.stderr)
    for table in explanation_tables(found):
        show_table(console, table)
    assert found.composition is not None
    console.print()
    for line in (*timeline_chart(found.composition), "", moment_text(found.composition)):
        console.print(line, soft_wrap=True)


@app.command()
def estimate(
    profile: ProfileArgument,
    train_size: Annotated[
        int | None, typer.Option("--train-size", min=1, help="Documents to train on.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Tokens a document is cut at.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Documents a batch.")] = None,
    gpu: GpuOption = None,
    usd_per_hour: Annotated[
        list[float] | None,
        typer.Option(
            "--usd-per-hour", metavar="USD", help="What a device costs: one for all, or one each."
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--measured", metavar="RUN_DIR", help="Runs to fit; results/PROFILE if it is there."
        ),
    ] = None,
    attention: AttentionOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate time, memory, money and accuracy of a run that was not made, with intervals.

    What is not given is the profile's largest. On a card that no run was made on, time is a roofline
    interval; without --gpu the estimate is for the machine that runs were measured on.
    """
    from bench import estimate as estimates
    from bench.grid import Grid
    from bench.profile import load_profile
    from bench.report.estimate import estimate_json
    from bench.workload import resolve_data, resolve_model

    loaded = load_profile(profile, overrides or ())
    gpus, kernel = _gpus(gpu), _attention(attention)
    given = {
        "train_size": train_size,
        "max_length": max_length,
        "per_device_train_batch_size": batch,
    }
    model, data = resolve_model(loaded.workload), resolve_data(loaded.workload)
    target = estimates.target_of(loaded, model, data, given)
    folder = measured or Path("results") / loaded.name
    known = estimates.read_measured(folder, target, asked=measured is not None)
    cards, on_cpu = estimates.devices_of(gpus, known)
    estimates.prices_of(usd_per_hour or (), len(gpus) or len(known.evidence))
    one = Grid(axes=(), cells=(target.cell,))
    found = estimates.estimate(
        target,
        gpus,
        known,
        on_cards=_forecast(one, cards, largest_batch=True, work=True, attention=kernel)
        if cards
        else None,
        on_cpu=_forecast(one, (), on_cpu=True) if on_cpu else None,
        usd_per_hour=usd_per_hour or (),
    )
    if as_json:
        print(json.dumps(estimate_json(found), indent=1))
    else:
        _show_estimate(found)
    if found.refused:
        raise typer.Exit(EXIT_FINDING)


def _show_estimate(found: Any) -> None:
    """Show an estimate: what of, a table a device, and what must be known about it."""
    from bench.report.estimate import LEGEND, device_table, headline
    from bench.report.terminal import show_table

    console = _console()
    for line in headline(found):
        console.print(line, soft_wrap=True)
    for device in found.devices:
        show_table(console, device_table(device, found.accuracy))
        for note in device.notes:
            console.print(f"(!) {note}", soft_wrap=True)
    console.print()
    for note in (LEGEND, *found.notes):
        console.print(note, soft_wrap=True, style="dim")


def _resolved(
    profile: str, overrides: list[str] | None, only: str | None, *, option: str = "--only"
) -> tuple[Any, Any]:
    """Return a profile, and the part of its grid that is asked for."""
    from bench.grid import expand
    from bench.profile import load_profile, parse_selection
    from bench.workload import resolve_data, resolve_model

    loaded = load_profile(profile, overrides or ())
    grid = expand(loaded, resolve_model(loaded.workload), resolve_data(loaded.workload))
    selection = parse_selection(only, option=option) if only else {}
    return loaded, grid.only(selection, option=option)


def _gpus(names: list[str] | None) -> list[Any]:
    from bench.gpus import find_gpu

    return list({gpu.name: gpu for gpu in map(find_gpu, names or ())}.values())


def _attention(name: str | None) -> Any:
    from bench.errors import nearest_name

    kernels = ("math", "efficient", "flash", "cudnn")
    if name is None or name in kernels:
        return name
    raise ProfileError(
        "no such attention kernel",
        where="--attention",
        got=name,
        expected=f"one of {', '.join(kernels)}",
        nearest=nearest_name(name, kernels),
    )


def _predictor() -> Any:
    """Return the engine of predictions, which shows its worker no card: none may matter."""
    from bench.devices import DeviceChoice
    from bench.engines.local import LocalEngine

    return LocalEngine("spawn", DeviceChoice(kind="cpu").environment)


def _forecast(grid: Any, gpus: Any, **options: Any) -> Any:
    """Return a worker's predictions of a grid; what it is at goes to stderr."""
    from bench.forecast import forecast, processes
    from bench.prediction import PredictRequest
    from bench.progress import phases_on

    request = PredictRequest(cells=grid.cells, gpus=tuple(gpus), processes=processes(), **options)
    try:
        with phases_on(sys.stderr) as show:
            return forecast(request, _predictor(), on_progress=show)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)


@app.command()
def run(
    profile: ProfileArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory.")
    ] = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Add to a directory measured under another environment.")
    ] = False,
    rerun_noisy: Annotated[
        bool,
        typer.Option(
            "--rerun-noisy",
            help="Run cells again whose load or spread passed a threshold, or with untrusted figures.",
        ),
    ] = False,
    skip_unfit: Annotated[
        bool,
        typer.Option(
            "--skip-unfit", help="Do not run cells that are predicted not to fit; recorded as such."
        ),
    ] = False,
) -> None:
    """Run the missing cells of a profile, then print and write the tables."""
    from bench.devices import choose_device
    from bench.engines.local import LocalEngine
    from bench.grid import axis_order, expand, kept_cells
    from bench.profile import load_profile
    from bench.progress import RunDisplay
    from bench.runner import Runner
    from bench.store import RunDirectory
    from bench.workload import resolve_data, resolve_model

    loaded = load_profile(profile, overrides or ())
    device = choose_device(loaded.run.device)
    selection = _selection(only)
    whole = expand(loaded, resolve_model(loaded.workload), resolve_data(loaded.workload))
    grid, kept = whole.only(selection), kept_cells(loaded, whole)
    directory = RunDirectory.create(out or Path("results") / loaded.name)
    isolation = loaded.run.isolation
    if isolation == "auto":
        isolation = "spawn" if device.kind == "cuda" else "forkserver"
    console = _console()
    with RunDisplay(console, axis_order(axis.name for axis in grid.axes)) as display:
        engine = LocalEngine(isolation, device.environment)
        runner = Runner(
            loaded, grid, directory, engine, device, display, kept=kept, predictor=_predictor()
        )
        try:
            records = runner.run(mixed=mixed, rerun_noisy=rerun_noisy, skip_unfit=skip_unfit)
        except (ProfileError, WorkloadError):
            directory.discard()  # nothing was run: nothing is left behind
            raise
        except KeyboardInterrupt:
            _fail("interrupted; finished cells are kept, run again to go on", EXIT_INTERRUPTED)
    _report(directory, directory.path, DEFAULT_FORMATS)
    if any(record.status not in ("ok", "unfit") or record.untrusted for record in records):
        raise typer.Exit(EXIT_FINDING)


@app.command()
def frontier(
    profile: ProfileArgument,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit", metavar="SIZE", help="Memory of a worker, as 4GiB; else the card's."
        ),
    ] = None,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, help="Look no further than this batch size.")
    ] = 4096,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory.")
    ] = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
) -> None:
    """Search the largest batch of each length that completes two optimizer steps under a limit."""
    from bench.devices import choose_device
    from bench.engines.local import LocalEngine
    from bench.frontier import Frontier
    from bench.grid import expand
    from bench.profile import load_profile
    from bench.progress import FrontierDisplay
    from bench.report.frontier import frontier_table, write_frontier
    from bench.report.terminal import show_table
    from bench.store import RunDirectory
    from bench.workload import resolve_data, resolve_model

    loaded = load_profile(profile, overrides or ())
    device = choose_device(loaded.run.device)
    grid = expand(loaded, resolve_model(loaded.workload), resolve_data(loaded.workload))
    directory = RunDirectory.create(out or Path("results") / loaded.name)
    console = _console()
    try:
        search = Frontier(
            loaded,
            grid.only(_selection(only)),
            directory,
            LocalEngine("spawn", device.environment),
            device,
            FrontierDisplay(console),
            limit_bytes=_size(limit, "--limit"),
            largest=max_batch,
        )
        rows = search.run()
    except (ProfileError, WorkloadError):
        directory.discard()
        raise
    except KeyboardInterrupt:
        _fail("interrupted; the tries so far are kept, run again to go on", EXIT_INTERRUPTED)
    show_table(console, frontier_table(rows))
    for file in write_frontier(rows, directory.path):
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)
    if any(row.edge.undecided is not None for row in rows):
        raise typer.Exit(EXIT_FINDING)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR",
            help="What `ftbench run` wrote; two of them are put side by side.",
        ),
    ],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME,...",
            help="Of md, html, csv, json, parquet, latex, png, step-summary; md,html,csv if not given.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where to write it: else the run directory; of two, nothing is written.",
        ),
    ] = None,
    usd_per_hour: Annotated[
        float | None,
        typer.Option(
            "--usd-per-hour", min=0.0, help="A price: the cells worth their time show its money."
        ),
    ] = None,
) -> None:
    """Print the tables of a run directory and write its report; or put two side by side."""
    from bench.store import RunDirectory

    if len(run_dirs) > 2:
        raise ProfileError(
            "too many run directories",
            where="RUN_DIR",
            got=", ".join(map(str, run_dirs)),
            expected="one, or two to put side by side",
        )
    wanted = tuple(name.strip() for name in formats.split(",")) if formats is not None else None
    directories = [RunDirectory.open(path) for path in run_dirs]
    if len(directories) == 2:
        _side_by_side(directories[0], directories[1], out, wanted)
    else:
        _report(
            directories[0], out or run_dirs[0], wanted or DEFAULT_FORMATS, usd_per_hour=usd_per_hour
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of a profile, for editors."""
    from bench.profile import profile_schema

    print(json.dumps(profile_schema(), indent=1))


def _report(directory: Any, folder: Path, formats: tuple[str, ...], **options: Any) -> None:
    """Show and write the report of a run directory."""
    from bench.report.write import load_document, write_report

    document = load_document(directory, **options)
    _show(document, write_report(document, folder, formats))


def _side_by_side(a: Any, b: Any, folder: Path | None, formats: tuple[str, ...] | None) -> None:
    """Show two run directories side by side, and write that where a folder is named."""
    from bench.report.side_by_side import build, load_side_by_side, writers
    from bench.report.write import write_report

    nowhere = formats is not None and set(formats) != {"step-summary"} and folder is None
    if nowhere or (folder is not None and folder.resolve() in (a.path.resolve(), b.path.resolve())):
        raise ProfileError(
            "two run directories side by side are written into a folder of their own",
            where="--out",
            got=str(folder) if folder else None,
            expected="a folder that is neither of them",
        )
    found = load_side_by_side(a, b)
    document, written = build(found), []
    if folder is not None or formats is not None:
        wanted = formats or DEFAULT_FORMATS
        written = write_report(document, folder or Path(), wanted, writers(found))
    _show(document, written)


def _show(document: Any, written: list[Path]) -> None:
    """Print a document, and the files that it was written to."""
    from bench.report.terminal import show

    console = _console()
    show(console, document)
    console.print()
    for file in written:
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)


def _size(text: str | None, option: str) -> int | None:
    from bench.units import parse_bytes

    try:
        return None if text is None else parse_bytes(text)
    except ValueError as error:
        raise ProfileError(str(error), where=option) from error


def _selection(only: str | None) -> dict[str, Any]:
    from bench.profile import parse_selection

    return parse_selection(only, option="--only") if only else {}


def _console() -> Any:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(highlight=False, width=wide)


if __name__ == "__main__":
    main()
