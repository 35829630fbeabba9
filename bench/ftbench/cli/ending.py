"""How the program ends: with the exit code of what happened, whatever the terminal or the pipe can take.

Exit code 1 is a finding of a command (a cell failed, memory moved), so nothing else may end with it: neither a
defect of this program, nor a full disk behind the output, nor a reader that has gone.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from ftbench.base.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_READER_GONE,
    EXIT_TERMINATED,
    FtbenchError,
    OutputError,
    missing_package,
)
from ftbench.base.redaction import redact
from ftbench.base.text import printable

# For outputs that cannot show a character (LC_ALL=C, latin-1).
_PLAIN = {"…": "...", "─": "-", "━": "-", "│": "|", "\u2013": "-", "\u2014": "-", "\u00d7": "x"}
_PLAIN |= {"→": "->", "±": "+/-", "≤": "<=", "≥": ">=", "≈": "~", "µ": "u", "²": "^2", "•": "*"}


# After this many seconds an interruption that got lost is raised again.
_AGAIN_S = 0.01


class Interrupted(BaseException):
    """Ctrl-C. No KeyboardInterrupt, which typer ends in silence."""

    exit_code = EXIT_INTERRUPTED


class Terminated(Interrupted):
    """SIGTERM or SIGHUP: the program ends as after Ctrl-C, with its workers, and says so."""

    exit_code = EXIT_TERMINATED


def run(command: Callable[[], object]) -> NoReturn:
    """Run the command line, and end with its exit code; every error becomes a message on stderr."""
    code = _code_of(command)
    # What happened is decided: a late Ctrl-C may not end the interpreter's own end with another exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _code_of(command: Callable[[], object]) -> int:
    _prepare_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    sys.unraisablehook = _unraised
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in `nohup`
        signal.signal(signal.SIGINT, _interrupt)
    try:
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else EXIT_INTERNAL
    except _ReaderGone:
        code = EXIT_READER_GONE
    except FtbenchError as error:
        code = _say(f"ftbench: {error}", error.exit_code)
    except Interrupted as error:
        code = _say("ftbench: interrupted", error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        code = _defect() if missing is None else _say(f"ftbench: {missing}", EXIT_BAD_INPUT)
    except OSError as error:
        if error.filename is None:
            code = _defect()
        else:  # a path that is too long, a folder that may not be searched, ...
            code = _say(
                f"ftbench: {printable(str(error.filename))}: {error.strerror}", EXIT_BAD_INPUT
            )
    except Exception:
        code = _defect()
    return _flushed(code)


def _defect() -> int:
    where = "this is a defect of ftbench, not of your input; please report it with the lines above"
    return _say(f"{redact(traceback.format_exc())}ftbench: internal error: {where}", EXIT_INTERNAL)


def _flushed(code: int) -> int:
    """Return the exit code after the last output is written; another if that fails."""
    try:
        sys.stdout.flush()
    except _ReaderGone:
        code = code or EXIT_READER_GONE
    except FtbenchError as error:
        # A finding is told by the exit code even if its text is lost.
        code = code or _say(f"ftbench: {error}", error.exit_code)
    _discard(sys.stdout)
    return code


def _say(message: str, code: int) -> int:
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, ValueError, FtbenchError):
        _discard(sys.stderr)  # closed, or full: the exit code has to do
    return code


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _unraised(what: sys.UnraisableHookArgs) -> None:
    """Interrupt once more if an interruption came where Python can raise nothing, as while it frees an object."""
    if not issubclass(what.exc_type, Interrupted):
        sys.__unraisablehook__(what)
        return
    import threading

    number = signal.SIGTERM if issubclass(what.exc_type, Terminated) else signal.SIGINT
    # To the main thread: a signal that the timer's own thread gets does not end what the main thread waits in.
    main = threading.main_thread().ident
    threading.Timer(_AGAIN_S, signal.pthread_kill, [main, number]).start()


class _ReaderGone(BaseException):
    """The reader of the standard output has ended. No error: nobody is left to be told."""


class _Output(io.TextIOWrapper):
    """A standard output whose failures are errors of ours, so that no library turns them into another exit code."""

    def write(self, text: str) -> int:
        return self._guarded(lambda: io.TextIOWrapper.write(self, text))

    def flush(self) -> None:
        self._guarded(lambda: io.TextIOWrapper.flush(self))

    def _guarded(self, act: Callable[[], int | None]) -> int:
        try:
            return act() or 0
        except BrokenPipeError:
            _discard(self)
            raise _ReaderGone from None
        except OSError as error:
            _discard(self)
            raise OutputError(f"cannot be written: {error.strerror}", where="stdout") from error


def _discard(stream: TextIO) -> None:
    """Send the rest of a stream to nowhere, so that the interpreter's own flush at its end cannot fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # closed already


def _prepare_streams() -> None:
    """Make the standard streams take every character, and report their own failures."""
    codecs.register_error("ftbench", _plain)
    if sys.stdout is None:  # closed by the caller: `>&-`
        raise SystemExit(_say("ftbench: stdout is closed", OutputError.exit_code))
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - lives as long as the program
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="ftbench")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        line_buffering, encoding = sys.stdout.line_buffering, sys.stdout.encoding
        sys.stdout = _Output(
            sys.stdout.detach(), encoding=encoding, errors="ftbench", line_buffering=line_buffering
        )


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return the plain form of characters that an output cannot show, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end
