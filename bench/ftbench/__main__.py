"""The program: `ftbench`, or `python -m ftbench`."""

from __future__ import annotations

import sys

# 128 + SIGINT, as `base/errors.py` has it, which is not imported yet.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends it as quietly as later; a missing package is named."""
    try:
        from ftbench.cli import main as run
    except ModuleNotFoundError as error:
        from ftbench.base.errors import EXIT_BAD_INPUT, missing_package

        missing = missing_package(error)
        if missing is None:
            raise
        print(f"ftbench: {missing}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("ftbench: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
