"""The program: `ftbench`, or `python -m ftbench`."""

from __future__ import annotations

import sys

# 128 + SIGINT, as `base/errors.py` has it, which is not imported yet.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends it as quietly as later."""
    try:
        from ftbench.cli import main as run
    except KeyboardInterrupt:
        print("ftbench: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
