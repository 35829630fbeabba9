"""How the program ends, as a process: with a full disk, without a reader, by a signal, by a defect of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """\
import os, signal, sys, time
from ftbench.base.errors import BaselineError
from ftbench.cli.ending import run
def command():
    what = sys.argv[1]
    print("a line … of output ±")
    if what == "finding":
        raise SystemExit(1)
    if what == "refuse":
        raise BaselineError("no such baseline")
    if what == "defect":
        os.environ["MY_TOKEN"] = "abcdefgh12345"
        raise RuntimeError("with abcdefgh12345 in it")
    if what == "long":
        open("x" * 300)
    if what == "package":
        import nobody_has_this_package.part
    if what == "part":
        import json.nobody_has_this_part
    if what == "wait":
        sys.stdout.flush()
        time.sleep(60)
    if what == "freed":
        class Freed:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)
        Freed()
        time.sleep(10**6)
    if what == "much":
        for _ in range(10**5):
            print("x" * 100)
run(command)
"""


def ended(what, *, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        timeout=120,
        # A shell's background job, and what it starts, ignores Ctrl-C; a user's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interruption_while_an_object_is_freed_is_not_lost():
    done = ended("freed")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("ftbench: interrupted\n")


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("well", 0),
        ("finding", 1),
        ("refuse", 2),
        ("long", 2),
        ("defect", 70),
        ("package", 2),
        ("part", 70),
    ],
)
def test_each_end_has_its_exit_code(what, code):
    done = ended(what)
    assert done.returncode == code
    assert done.stdout == "a line … of output ±\n"


def test_a_defect_shows_its_traceback_without_secrets():
    done = ended("defect")
    assert "Traceback" in done.stderr
    assert "defect of ftbench" in done.stderr
    assert "abcdefgh12345" not in done.stderr


@pytest.mark.parametrize(("what", "code"), [("well", 2), ("finding", 1), ("refuse", 2)])
def test_a_full_disk_behind_the_output(what, code):
    """A finding is still one; nothing else ends as one."""
    with Path("/dev/full").open("w") as full:
        done = ended(what, stdout=full)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if what == "well":
        assert done.stderr == "ftbench: stdout: cannot be written: No space left on device\n"


@pytest.mark.parametrize(("what", "code"), [("much", 141), ("well", 141), ("finding", 1)])
def test_a_reader_that_has_gone(what, code):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = ended(what, stdout=nobody)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_closed_output():
    command = ["sh", "-c", 'exec "$0" -c "$1" well >&-', sys.executable, PROGRAM]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "ftbench: stdout is closed\n")


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", b"a line ... of output +/-"),
        ("latin-1", "a line ... of output ±".encode("latin-1")),
        ("utf-8", "a line … of output ±".encode()),
    ],
)
def test_an_output_that_cannot_show_a_character(encoding, line):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "well"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stdout) == (0, line + b"\n")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal(number, code):
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, and what it starts, ignores Ctrl-C; a user's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    running.stdout.readline()
    running.send_signal(number)
    assert running.wait(30) == code
    assert "Traceback" not in running.stderr.read()
