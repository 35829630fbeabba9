"""How long the report of a thousand cells takes: to write, and in a browser until every chart is drawn."""

import statistics
import time

import pytest

from ftbench.report.write import fits, write_report
from tests import synthetic
from tests.benchmarks.report import show
from tests.chromium import Browser

CELLS = 1000
BAR_S, BAR_BYTES = 3.0, 10 * 2**20
ROUNDS = 5


@pytest.fixture(scope="module")
def records():
    return synthetic.records()


def timed(call, *args):
    began = time.perf_counter()
    found = call(*args)
    return found, time.perf_counter() - began


def test_report_of_a_thousand_cells(records, tmp_path):
    assert len(records) == CELLS
    (groups, curves), fitted_s = timed(fits, records)
    document, built_s = timed(
        lambda: synthetic.document(records, groups=groups, fitted_curves=curves)
    )
    figures = {"fits": f"{fitted_s:.1f} s", "document": f"{built_s:.1f} s"}
    for name in ("csv", "html", "md"):
        written, took_s = timed(write_report, document, tmp_path, [name])
        size = sum(file.stat().st_size for file in written)
        figures[f"written as {name}"] = f"{took_s:.1f} s, {size / 2**20:.1f} MiB"
    html = tmp_path / "report.html"
    for width in (1400, 400):
        with Browser(width) as browser:
            ready = [browser.open(html) for _ in range(ROUNDS)]
            assert browser.console == []
        figures[f"ready in Chromium, {width} px wide"] = (
            f"median {statistics.median(ready):.2f} s, at most {max(ready):.2f} s (bar: {BAR_S:.0f} s)"
        )
    assert html.stat().st_size < BAR_BYTES
    show(f"the report of {CELLS:,} cells, from navigation to the last chart drawn", figures)
