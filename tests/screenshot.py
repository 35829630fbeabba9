"""The README's picture of a report: `python -m tests.screenshot` writes docs/report.png.

The top of the committed report of `quick`, as a browser of 1400 pixels draws it.
"""

import argparse
from pathlib import Path

from tests.chromium import Browser

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1400, 1310
MOST_BYTES = 400_000  # a README is read over slow lines, too


def main():
    """Draw the report and write its top as PNG."""
    parser = argparse.ArgumentParser("python -m tests.screenshot", description=__doc__)
    parser.add_argument("--report", type=Path, default=ROOT / "reports/quick/report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/report.png")
    asked = parser.parse_args()
    with Browser(WIDTH, HEIGHT) as browser:
        browser.open(asked.report)
        browser.screenshot(asked.out, height=HEIGHT)
    size = asked.out.stat().st_size
    print(f"wrote {asked.out}: {size:,} bytes")
    if size > MOST_BYTES:
        parser.error(f"{asked.out} is over {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
