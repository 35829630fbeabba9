"""`ftbench init`: look at a data set and a model, and write a first profile for them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.cli.completion import tasks
from ftbench.cli.options import SetOption, open_console

if TYPE_CHECKING:
    from rich.console import Console

    from ftbench.cli.first_look import Look
    from ftbench.plan.profile import TaskName
    from ftbench.plan.sources import DataSource, ModelSource
    from ftbench.records.first_look import TextFacts
    from ftbench.verbs.starter.columns import Roles
    from ftbench.verbs.starter.first_grid import FirstGrid

DEFAULT_MODEL = "offline:minilm-l6"

# Keys that are found out, or have an option of their own.
_FOUND = tuple(
    f"workload.{key}"
    for key in (
        *("task", "model", "dataset", "train_split", "eval_size", "text_column", "label_column"),
        *("completion_column", "messages_column", "drop_duplicates"),
    )
)

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A CSV, JSON or Parquet file, a directory of them, or a hub id."
    ),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="DIR", help="A directory of a model, or a hub id."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The profile.  [default: DATA's name, .toml]"),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="The task.  [default: what the columns fit]",
        autocompletion=tasks,
    ),
]
TextOption = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="COLUMN", help="The column of the texts; two make a pair."),
]
LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="COLUMN", help="The column of the labels.")
]
CompletionOption = Annotated[
    str | None,
    typer.Option("--completion", metavar="COLUMN", help="The column of what follows a prompt."),
]
MessagesOption = Annotated[
    str | None,
    typer.Option("--messages", metavar="COLUMN", help="The column of conversations."),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--train-split", metavar="NAME", help="The split to train on.  [default: train]"),
]
MinutesOption = Annotated[
    float,
    typer.Option("--minutes", metavar="N", min=0.1, help="The first grid is to end within this."),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Take the guessed columns without asking.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Overwrite a profile that is there already.")
]


def init(
    data: DataArgument,
    model: ModelOption = DEFAULT_MODEL,
    out: OutOption = None,
    task: TaskOption = None,
    text: TextOption = None,
    label: LabelOption = None,
    completion: CompletionOption = None,
    messages: MessagesOption = None,
    train_split: SplitOption = None,
    minutes: MinutesOption = 5.0,
    overrides: SetOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
) -> None:
    """Look at a data set and a model, and write a first profile for them.

    Guesses the columns of texts and labels (asks in a terminal), counts classes, duplicates and tokens, times a
    few steps, and chooses a grid that ends within --minutes on this machine. Nothing else is run.
    """
    from ftbench.cli.first_look import Look
    from ftbench.verbs.starter.columns import Given

    file = _place(data, out, force=force)
    given = Given(_task_name(task), _texts(text), label, completion, messages)
    look = Look(data, model, train_split, _more_settings(overrides))
    console = open_console()
    roles = look.roles(given, console, ask=sys.stdin.isatty() and sys.stdout.isatty() and not yes)
    _write(look, roles, file, minutes, console)


def _task_name(task: str | None) -> TaskName | None:
    from ftbench.plan.profile import TaskName

    names = get_args(TaskName)
    if task is None or task in names:
        return cast("TaskName | None", task)
    raise ProfileError(
        "no such task",
        where="--task",
        got=task,
        expected=f"one of {', '.join(names)}",
        nearest=nearest_name(task, names),
    )


def _more_settings(overrides: list[str] | None) -> dict[str, object]:
    """Return settings of `[workload]` that --set gives; raises ProfileError for those of another table."""
    from ftbench.plan.profile_file import apply_override, parse_assignment

    asked: dict[str, dict[str, object]] = {"workload": {}}
    for text in overrides or ():
        key, _ = parse_assignment(text, option="--set")
        if not key.startswith("workload.") or key in _FOUND:
            raise ProfileError(
                "not a setting that `ftbench init` takes",
                where="--set",
                got=key,
                expected="a key of [workload] beside those that it finds out, such as workload.encoding",
                hint="change the others in the profile that it writes",
            )
        apply_override(asked, text)
    return asked["workload"]


def _texts(text: list[str] | None) -> tuple[str, ...]:
    if text is not None and (len(text) > 2 or len(set(text)) < len(text)):
        raise ProfileError(
            "one column of texts, or two that are read as a pair",
            where="--text",
            got=", ".join(text),
        )
    return tuple(text or ())


def _place(data: str, out: Path | None, *, force: bool) -> Path:
    """Return the file of the profile; raises ProfileError if it may not be written, or would change the data."""
    file = out or Path(f"{_name_of(data)}.toml")
    if file.suffix != ".toml":
        raise ProfileError(
            "a profile's name ends in .toml", where="--out", got=str(file), expected=f"{file}.toml"
        )
    if file.exists() and not force:
        raise ProfileError(
            "the file is there already",
            where="--out",
            got=str(file),
            hint="--force overwrites it, --out names another one",
        )
    folder = Path(data).expanduser()
    if folder.is_dir() and file.resolve().is_relative_to(folder.resolve()):
        raise ProfileError(
            "a profile in the folder of the data would be part of the data, and change its revision",
            where="--out",
            got=str(file),
            expected=f"a place outside of {folder}",
            hint="run ftbench in another folder: its results may not be beside the data either",
        )
    if not file.parent.is_dir():
        raise ProfileError("no such folder", where="--out", got=str(file.parent))
    return file


def _name_of(data: str) -> str:
    """Return a name for the profile: that of the data, without endings and signs."""
    name = Path(data.rstrip("/")).expanduser().absolute().name
    stem = re.sub(r"(\.(csv|tsv|jsonl?|parquet|gz|txt))+$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w-]+", "-", stem).strip("-") or "profile"


def _write(look: Look, roles: Roles, file: Path, minutes: float, console: Console) -> None:
    """Write the profile, and show what it is made of."""
    from ftbench.base.files import write_atomically
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import resolve
    from ftbench.report.commands.first_look import (
        classes_table,
        facts_lines,
        next_commands,
        time_line,
        tokens_table,
    )
    from ftbench.report.render.terminal import show_line, show_table
    from ftbench.verbs.starter.first_grid import SLOWEST
    from ftbench.verbs.starter.profile_text import Starter, profile_text

    settings = look.workload(roles)
    facts = look.texts(settings)
    if facts.duplicates:
        settings["drop_duplicates"] = True
    grid, cells, seconds = _fitting(settings, facts, minutes)
    command = f"ftbench init {shlex.quote(look.data)}"
    starter = Starter(settings, facts, grid, cells, seconds)
    write_atomically(file, profile_text(starter, command=command))
    resolve(load_profile(str(file.absolute())))  # what was written can be planned
    if facts.classes:
        show_table(console, classes_table(facts))
    show_table(console, tokens_table(facts.tokens))
    console.print()
    lines = (*facts_lines(facts), time_line(cells, seconds, SLOWEST, minutes), "")
    shown = f"./{file}" if str(file).startswith("-") else str(file)
    for line in (
        *lines,
        f"wrote {file}. Go on with:",
        *(f"  {c}" for c in next_commands(shown, f"results/{file.stem}")),
    ):
        show_line(console, line)


def _fitting(
    settings: dict[str, object], facts: TextFacts, minutes: float
) -> tuple[FirstGrid, int, float | None]:
    """Return the first grid that ends in time, else the smallest; with its cells and seconds."""
    from ftbench.plan.grid import expand
    from ftbench.plan.profile_file import build_profile
    from ftbench.plan.sources import resolve_data, resolve_model
    from ftbench.verbs.starter.first_grid import SLOWEST, grids, seconds_of
    from ftbench.verbs.starter.profile_text import profile_data

    sources: tuple[ModelSource, DataSource] | None = None
    for grid in grids(facts):
        profile = build_profile({**profile_data(settings, grid), "name": "init"}, where="init")
        if sources is None:  # the files are hashed once
            sources = resolve_model(profile.workload), resolve_data(profile.workload)
        model, data = sources
        data = data.model_copy(update={"eval_size": grid.eval_size})
        cells = expand(profile, model, data).cells
        seconds = seconds_of(cells, facts)
        if seconds is not None and SLOWEST * seconds <= minutes * 60:
            break
    return grid, len(cells), seconds
