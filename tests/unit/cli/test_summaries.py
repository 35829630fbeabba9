"""Help: -h of every command, and summaries that no width cuts."""

import json

import pytest
import typer
from typer.testing import CliRunner

from ftbench.cli import app

RUNNER = CliRunner()


def commands(group=None, above=()):
    """Return the words of every command of the program."""
    group = group or typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():
        nested = hasattr(command, "commands")
        found += commands(command, (*above, name)) if nested else [(*above, name)]
    return found


@pytest.mark.parametrize("words", [(), ("baseline",), *commands()], ids=" ".join)
def test_every_command_takes_the_short_option_of_help(words):
    short, long = (RUNNER.invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert (short.exit_code, long.exit_code) == (0, 0)
    assert short.output == long.output
    assert "Usage" in short.output


@pytest.mark.parametrize("words", [(), ("baseline",)])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_summary_is_cut(words, width):
    text = RUNNER.invoke(app, [*words, "-h"], terminal_width=width).output
    assert "..." not in text.partition("Commands:")[2]
    shown = " ".join(text.split())
    group = typer.main.get_command(app)
    for word in words:
        group = group.commands[word]
    for command in group.commands.values():
        assert command.get_short_help_str(limit=1000) in shown


@pytest.mark.parametrize("verb", ["profiles", "gpus"])
def test_a_catalogue_is_printed_as_a_table_and_as_json(verb):
    names = [row["name"] for row in json.loads(RUNNER.invoke(app, [verb, "--json"]).output)]
    text = RUNNER.invoke(app, [verb]).output
    assert len(names) > 5
    assert [name for name in names if name not in text] == []
