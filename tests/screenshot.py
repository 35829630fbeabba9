"""The README's picture of a report: `python -m tests.screenshot` writes docs/report.png.

The first two sections of the committed report of `quick`, in a window as wide as a README's column, so that
its text is read at its own size; twice the pixels, for screens that have them.
"""

import argparse
from pathlib import Path

from tests.chromium import Browser

ROOT = Path(__file__).parents[1]
WIDTH, PIXELS = 1000, 2
SECTIONS = 2
MARGIN = 24
MOST_BYTES = 400_000  # a README is read over slow lines, too


def main():
    """Draw the report and write its top as PNG."""
    parser = argparse.ArgumentParser("python -m tests.screenshot", description=__doc__)
    parser.add_argument("--report", type=Path, default=ROOT / "reports/quick/report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/report.png")
    asked = parser.parse_args()
    with Browser(WIDTH) as browser:
        browser.open(asked.report)
        section = f"document.querySelectorAll('main section')[{SECTIONS - 1}]"
        end = browser.evaluate(
            f"[...{section}.querySelectorAll('*')].reduce((end, part) => "
            "Math.max(end, part.getBoundingClientRect().bottom), 0) + scrollY"
        )
        browser.screenshot(asked.out, height=round(end) + MARGIN, scale=PIXELS)
    size = asked.out.stat().st_size
    print(f"wrote {asked.out}: {size:,} bytes")
    if size > MOST_BYTES:
        parser.error(f"{asked.out} is over {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
