"""The program: `ftbench`, or `python -m ftbench`."""

from __future__ import annotations

import sys

# 128 + SIGINT, as `base/errors.py` has it, which is not imported yet.
_INTERRUPTED = 130
_BAD_INPUT = 2


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends it as quietly as later; a missing package is named."""
    try:
        from ftbench.cli import main as run
    except ModuleNotFoundError as missing:
        if str(missing.name).partition(".")[0] == "ftbench":
            raise
        print(f"ftbench: the package {missing.name} is missing; pip installs it", file=sys.stderr)
        sys.exit(_BAD_INPUT)
    except KeyboardInterrupt:
        print("ftbench: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
