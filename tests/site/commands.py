"""The command line as Markdown, from the program itself."""

import inspect
import re

import typer

from ftbench.cli import app
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.render.markdown import escaped, table_text

_HELP = re.compile(r"(.*?)((?: \[[^\[\]]*\])*)")


def commands_page():
    """Return the page of all commands: what each does, how it is called, its arguments and options."""
    group = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Every command takes `-h`, which shows what stands here. Exit codes: 0, all is well; 1, a finding (a failed"
        " cell, a figure that moved); 2, bad input, or what cannot be judged; 70, a defect of ftbench.",
    ]
    for name, command in _commands(group, "ftbench"):
        context = command.make_context(name, [], resilient_parsing=True)
        parts += [f"## {name}", *_paragraphs(command)]
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        parts += [f"```\n{usage}\n```", *_parameters(command, context)]
    return "\n\n".join(parts) + "\n"


def _commands(group, prefix):
    """Yield each command of a group and of the groups in it, with its whole name."""
    for name, command in group.commands.items():
        whole = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, whole)
        else:
            yield whole, command


def _paragraphs(command):
    text = inspect.cleandoc(command.help or "")
    return [escaped(" ".join(paragraph.split())) for paragraph in text.split("\n\n")]


def _parameters(command, context):
    """Return the table of a command's arguments and options, as its help has them; none if it has none."""
    records = [one.get_help_record(context) for one in command.params]
    rows = tuple(_row(*record) for record in records if record)
    columns = ("argument or option", "meaning", "default")
    table = Table(title="", columns=columns, rows=rows, numeric=(False,) * 3)
    return [table_text(table)] if rows else []


def _row(names, meaning):
    """Return the row of an option: its help ends in brackets with what is required, a default, or a limit."""
    text, limits = _HELP.fullmatch(" ".join(meaning.split())).groups()
    found = re.findall(r"\[(?:default: )?([^\[\]]*)\]", limits)
    return f"`{names.strip()}`", text, "; ".join(found) or ABSENT
