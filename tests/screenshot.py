"""The pictures of the documents: `python -m tests.screenshot` draws them again, all or those that are named.

The README's is the top of the committed report of `quick`, in a window as wide as a README's column, so that its
text is read at its own size; with more pixels, for screens that have them. The site's show the same report in a
wide window, light and dark, and commands in a terminal.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from tests.chromium import Browser
from tests.terminal import terminal_page

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports/quick/report.html"
SECTIONS = 2
MARGIN = 24
MOST_BYTES = 400_000  # pages are read over slow lines, too


def draw_report(file: Path, *, width: int, scale: float = 1, dark: bool = False) -> None:
    """Write the first sections of the report as PNG."""
    with Browser(width, dark=dark) as browser:
        browser.open(REPORT)
        section = f"document.querySelectorAll('main section')[{SECTIONS - 1}]"
        end = browser.evaluate(
            f"[...{section}.querySelectorAll('*')].reduce((end, part) => "
            "Math.max(end, part.getBoundingClientRect().bottom), 0) + scrollY"
        )
        browser.screenshot(file, height=round(end) + MARGIN, scale=scale)


def draw_terminal(file: Path, *, command: str, columns: int, lines: int | None = None) -> None:
    """Write the first lines that a command prints as PNG, in a terminal of so many columns."""
    with tempfile.TemporaryDirectory(prefix="ftbench-terminal-") as folder:
        page = Path(folder) / "page.html"
        page.write_text(terminal_page(command, columns, lines))
        with Browser() as browser:
            browser.open(page)
            text = "document.querySelector('code').getBoundingClientRect()"
            right, bottom = (
                round(browser.evaluate(f"{text}.{side}")) for side in ("right", "bottom")
            )
            browser.resize(right + MARGIN, bottom + MARGIN)
            browser.screenshot(file)


PICTURES: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "docs/report.png": partial(draw_report, width=1000, scale=1.5),
        "docs/pictures/report-light.png": partial(draw_report, width=1400),
        "docs/pictures/report-dark.png": partial(draw_report, width=1400, dark=True),
        "docs/pictures/plan.png": partial(draw_terminal, command="ftbench plan quick", columns=130),
        "docs/pictures/estimate.png": partial(
            draw_terminal,
            command="ftbench estimate quick --train-size 25000 --max-length 512 --gpu t4 --gpu l4 --gpu h100",
            columns=130,
            lines=16,
        ),
    }
)


def main() -> None:
    """Draw pictures; end with an error if one is too large."""
    parser = argparse.ArgumentParser("python -m tests.screenshot", description=__doc__)
    parser.add_argument(
        "pictures", nargs="*", choices=[*PICTURES, []], help="all, if none is named"
    )
    for name in parser.parse_args().pictures or PICTURES:
        file = ROOT / name
        file.parent.mkdir(exist_ok=True)
        PICTURES[name](file)
        size = file.stat().st_size
        print(f"wrote {name}: {size:,} bytes")
        if size > MOST_BYTES:
            parser.error(f"{name} is over {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
