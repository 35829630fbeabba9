"""`python -m ftbench.worker REQUEST.json`: runs one worker's request in the foreground, for debugging.

`ftbench run --keep-requests` leaves a request beside each log. Progress and prints go to stderr, the answer to
stdout. The worker overwrites the files of the run, so work on a copy of the run directory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path

from ftbench.base.errors import FtbenchError
from ftbench.records.messages import Progress


def main(arguments: list[str]) -> int:
    """Run the request in a file; return 0 for an answer, else the exit code of the error."""
    if len(arguments) != 1:
        print("usage: python -m ftbench.worker REQUEST.json", file=sys.stderr)
        return 2
    asked = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    os.environ.update(asked["environment"])

    def emit(progress: Progress) -> None:
        fields = progress.model_dump(exclude_none=True)
        print(" ".join(f"{name}={value}" for name, value in fields.items()), file=sys.stderr)

    try:
        with contextlib.redirect_stdout(sys.stderr):  # the Trainer's prints are not the answer
            answer = importlib.import_module(asked["module"]).main(asked["request"], emit)
    except FtbenchError as error:
        print(f"refused: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(answer, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
