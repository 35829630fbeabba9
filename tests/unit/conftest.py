"""Fixtures of the unit tests."""

import signal
import sys

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the program handles them until it ends


@pytest.fixture
def command(monkeypatch, capsys):
    """The command line in this process: returns (exit code, stdout, stderr)."""
    # Here, since the oldest transformers are tested where the command line is not installed.
    from ftbench import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run
