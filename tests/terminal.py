"""What a command prints in a terminal, as a page."""

import io
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROWS = 50
PAGE = """<!doctype html>
<meta charset="utf-8">
<style>
{stylesheet}
body {{ margin: 0; padding: 20px; background: {background}; color: {foreground}; }}
pre {{ margin: 0; font: 14px/1.35 "DejaVu Sans Mono", monospace; }}
</style>
<pre><code>{code}</code></pre>
<script>document.documentElement.dataset.ready = "true"; performance.mark("ftbench-ready");</script>
"""


def printed(command: str, columns: int) -> str:
    """Return what a command prints on a terminal, with its colours; raises CalledProcessError."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    program, *arguments = shlex.split(command)
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name(program)), *arguments],
        stdout=child,
        stderr=subprocess.DEVNULL,  # progress
        stdin=child,
        env=environment,
    )
    os.close(child)
    told = _read_to_end(parent)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command, told)
    return told.replace("\r\n", "\n")


def _read_to_end(descriptor: int) -> str:
    parts = []
    with open(descriptor, "rb", buffering=0) as stream:
        while True:
            try:
                part = stream.read(1 << 16)
            except OSError:  # the end of a terminal that nobody has open
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode()


def terminal_page(command: str, columns: int, lines: int | None = None) -> str:
    """Return a page with a command's line and the first lines that it prints, as a terminal shows them."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi("\n".join(printed(command, columns).splitlines()[:lines])))
    return console.export_html(theme=MONOKAI, code_format=PAGE)
