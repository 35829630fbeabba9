"""Fixtures of the unit tests."""

import sys

import pytest


@pytest.fixture
def command(monkeypatch, capsys):
    """The command line in this process: returns (exit code, stdout, stderr)."""
    # Here, since the oldest transformers are tested where the command line is not installed.
    from ftbench import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run
