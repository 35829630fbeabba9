"""The report in a real browser: Chromium, headless, over its debugging pipe.

A machine without one fails these tests with what to install; they are not skipped, since nothing else
looks at the page.
"""

import pandas as pd
import pytest

from ftbench.plan.cell import Cell
from ftbench.records.prediction import LargestBatch
from ftbench.records.readings import PHASES
from ftbench.records.record import Failure
from ftbench.report.write import fits, write_report
from tests import synthetic
from tests.chromium import Browser
from tests.factories import cell, measurement, record, run_warning

pytestmark = pytest.mark.integration

MIB = 2**20
LARGEST_FILE = 10 * MIB
HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><svg/onload=alert(1)>{{figures}}'\"`"
)


def written(folder, records, name="report", **fields):
    document = synthetic.document(records, **fields)
    (file,) = write_report(document, folder, ["html"])
    return file


CARDS = ("NVIDIA A100 80GB PCIe", "NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3", "NVIDIA L4")


def samples(_record):
    """Return half a minute of samples, over all phases."""
    seconds = range(30)
    of_memory = {
        "process_bytes": None,
        "device_bytes": None,
        "pss_bytes": [n * MIB for n in seconds],
    }
    return pd.DataFrame({"t_s": seconds, "phase": [PHASES[n // 6] for n in seconds], **of_memory})


EVIDENCE = {
    "samples": samples,
    "predicted": [
        LargestBatch(
            cell_id="0" * 12, gpu=gpu, max_length=n, certain=64, possible=80, reserved=None
        )
        for gpu in CARDS
        for n in (64, 128)
    ],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every kind of figure that fits and replicates bring."""
    records = synthetic.records((64, 128, 256), (4, 8, 16), (100, 300, 1000, 3000), replicates=3)
    groups, curves = fits(records)
    folder = tmp_path_factory.mktemp("report")
    return written(folder, records, groups=groups, fitted_curves=curves, **EVIDENCE)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A report of a thousand cells, without fits: it is the page that is looked at here."""
    return written(tmp_path_factory.mktemp("thousand"), synthetic.records())


@pytest.fixture(scope="module")
def one_browser():
    with Browser() as one:
        yield one


@pytest.fixture
def browser(one_browser):
    """The browser as it was: light, wide, and with no memory of a choice."""
    one_browser.media()
    one_browser.resize(1400)
    yield one_browser
    one_browser.evaluate("localStorage.clear()")


def overflow(browser):
    """Return by how many pixels the page is wider than its window."""
    return browser.evaluate("document.documentElement.scrollWidth - innerWidth")


def assert_quiet(browser, file):
    assert browser.console == []
    assert browser.requests == [file.resolve().as_uri()]


CHARTS = "[...document.querySelectorAll('.chart')]"
MARKS = "svg .mark-symbol path, svg .mark-rect path"


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn_without_an_error_and_nothing_is_cut_off(report, browser, width, dark):
    browser.resize(width)
    browser.media(dark=dark)
    browser.open(report)
    assert_quiet(browser, report)
    assert overflow(browser) <= 0
    charts = browser.evaluate("document.querySelectorAll('.chart').length")
    assert charts >= 10
    drawn = browser.evaluate(f"{CHARTS}.filter((c) => c.querySelector('{MARKS}')).length")
    assert drawn == charts
    right = browser.evaluate(f"{CHARTS}.map((c) => c.firstChild.getBoundingClientRect().right)")
    assert max(right) <= width


LEGENDS = f"{CHARTS}.map((c) => c.querySelectorAll('svg .role-legend').length)"
# Pixels by which any text of a chart reaches out of its picture.
CLIPPED = f"""{CHARTS}.flatMap((chart) => {{
  const box = chart.querySelector('svg').getBoundingClientRect();
  return [...chart.querySelectorAll('svg text')].filter((t) => t.textContent.trim()).map((t) => {{
    const own = t.getBoundingClientRect();
    return Math.max(box.left - own.left, own.right - box.right, box.top - own.top, own.bottom - box.bottom);
  }});
}})"""


@pytest.mark.parametrize("width", [400, 1400])
def test_a_chart_has_one_legend_and_no_text_of_it_is_cut_off(report, browser, width):
    browser.resize(width)
    browser.open(report)
    assert max(browser.evaluate(LEGENDS)) == 1
    assert max(browser.evaluate(CLIPPED)) <= 1
    texts = browser.evaluate(f"{CHARTS}.map((c) => c.querySelector('svg').textContent).join()")
    assert "\u2026" not in texts


def shown_cells(browser):
    """Bring the table of cells into sight, since only then it is laid out."""
    browser.evaluate(
        "document.querySelector('#cells').scrollIntoView({behavior: 'instant'});"
        " new Promise((done) => setTimeout(done, 500))"
    )


SIDES = "document.querySelector('#cells .frame').className"


def test_a_table_that_scrolls_says_so_and_has_a_shadow_on_the_side_with_more(report, browser):
    browser.resize(400)
    browser.open(report)
    shown_cells(browser)
    note = "document.querySelector('#cells .more')"
    assert "sideways and down" in browser.evaluate(f"{note}.textContent")
    assert not browser.evaluate(f"{note}.hidden")
    assert browser.evaluate(SIDES) == "frame right below"
    browser.evaluate(
        "(() => { const s = document.querySelector('#cells .scroll'); s.scrollTo(1e6, 1e6);"
        " return new Promise((done) => setTimeout(done, 300)); })()"
    )
    assert browser.evaluate(SIDES) == "frame left above"


def test_a_table_that_has_room_says_nothing(browser, tmp_path):
    browser.open(written(tmp_path, [record()]))
    packages = "[...document.querySelectorAll('.more')].at(-1)"
    browser.evaluate(f"{packages}.closest('details').open = true")
    assert browser.evaluate(f"{packages}.hidden")


def test_on_a_phone_score_time_and_memory_come_first(report, browser):
    browser.resize(400)
    browser.open(report)
    first = ["accuracy", "total", "peak RSS"]
    assert browser.evaluate(HEADS)[:3] == first
    texts = "[...document.querySelector('#cells tbody tr').cells].map((c) => c.textContent)"
    score, time, memory, length, *_ = browser.evaluate(texts)
    assert 0 < float(score) < 1
    assert time.endswith(" s")
    assert memory.endswith(" GiB")
    assert length == "64"
    assert typed(browser, "length=64 batch=8") == (12, "12 of 108 rows")
    browser.evaluate("document.querySelector('#cells th button').click()")
    column = "[...document.querySelectorAll('#cells tbody tr')].map((r) => r.cells[0].textContent)"
    scores = [float(text) for text in browser.evaluate(column)[:-1]]
    assert scores == sorted(scores)
    browser.resize(1400)
    assert browser.evaluate(HEADS)[:3] == ["length", "batch", "training examples"]
    assert browser.evaluate(texts)[:1] != [score]


def test_a_term_is_reached_by_keyboard_and_leads_to_its_meaning(report, browser):
    browser.open(report)
    term = "document.querySelector('a.term[href=\"#term-rss\"]')"
    assert browser.evaluate(f"{term}.title").startswith("Resident set size")
    browser.evaluate(f"{term}.focus()")
    assert browser.evaluate(f"document.activeElement === {term}")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.querySelector(':target').textContent").startswith("RSS")


def test_a_thousand_cells(thousand, browser):
    assert thousand.stat().st_size < LARGEST_FILE
    browser.open(thousand)
    assert_quiet(browser, thousand)
    assert browser.evaluate("document.querySelectorAll('#cells tbody tr').length") == 1000
    for width in (400, 1400):
        browser.resize(width)
        assert overflow(browser) <= 0


def test_charts_take_the_colours_of_the_page(report, browser):
    browser.open(report)
    ink = "getComputedStyle(document.querySelector('.chart svg .role-axis-title text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = browser.evaluate(ink), browser.evaluate(paper)
    browser.evaluate("document.getElementById('theme').click()")
    dark = browser.evaluate(ink), browser.evaluate(paper)
    assert light == ("rgb(26, 30, 35)", "rgb(255, 255, 255)")
    assert dark == ("rgb(231, 234, 238)", "rgb(20, 23, 27)")
    browser.media(printed=True)
    assert browser.evaluate(paper) == "rgb(255, 255, 255)"


def test_a_choice_changes_all_charts_of_its_group(report, browser):
    browser.open(report)
    charts = "[...document.querySelectorAll('#memory-and-time .chart')]"
    texts = f"{charts}.map((c) => c.querySelector('.mark-text').textContent)"
    before = browser.evaluate(texts)
    browser.evaluate(
        "(() => { const s = document.querySelector('#memory-and-time select'); s.selectedIndex = 2;"
        " s.dispatchEvent(new Event('change')); return new Promise((r) => setTimeout(r, 300)); })()"
    )
    after = browser.evaluate(texts)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert browser.console == []


HEADS = "[...document.querySelectorAll('#cells th')].map((h) => h.textContent)"


def test_columns_sort_by_keyboard_by_what_they_mean(report, browser):
    browser.open(report)
    place = browser.evaluate(HEADS).index("total")
    button = f"document.querySelectorAll('#cells th button')[{place}]"
    browser.evaluate(f"{button}.focus()")
    browser.press("Enter", 13, "\r")
    keys = (
        f"[...document.querySelectorAll('#cells tbody tr')].map((r) => r.cells[{place}].dataset.k)"
    )
    found = browser.evaluate(keys)
    numbers = [float(key) for key in found if key]
    assert numbers == sorted(numbers)
    assert found[-1] == ""  # the cell that failed has no time: last, either way
    sort = f"{button}.closest('th').getAttribute('aria-sort')"
    assert browser.evaluate(sort) == "ascending"
    browser.press("Enter", 13, "\r")
    found = browser.evaluate(keys)
    numbers = [float(key) for key in found if key]
    assert numbers == sorted(numbers, reverse=True)
    assert found[-1] == ""
    assert browser.evaluate(sort) == "descending"
    assert browser.evaluate("document.querySelectorAll('#cells th[aria-sort=none]').length") > 5


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("", 108),
        ("length=64", 36),
        ("length=64 batch=8", 12),
        ("training_examples>=1000", 54),
        ("oom", 1),
        ("no_such_word", 0),
    ],
)
def test_rows_are_filtered(filtered, words, rows):
    assert filtered(words) == rows


def test_a_filter_knows_units(filtered, one_browser):
    place = one_browser.evaluate(HEADS).index("total")
    keys = one_browser.evaluate(
        f"[...document.querySelectorAll('#cells tbody tr')].map((r) => r.cells[{place}].dataset.k)"
    )
    slow = sum(float(key) > 60 for key in keys if key)
    assert 0 < slow < 107
    assert filtered("total>1min") == filtered("total>60s") == filtered("total>60") == slow


@pytest.fixture
def filtered(report, one_browser):
    """Types words into the filter, and returns how many rows are left; the page says so too."""
    if one_browser.evaluate("location.href") != report.resolve().as_uri():
        one_browser.open(report)

    def count(words):
        shown, said = typed(one_browser, words)
        assert said == f"{shown} of 108 rows"
        return shown

    return count


def typed(browser, words):
    """Type words into the filter of the cells; return how many rows are left, and what the page says."""
    browser.evaluate(
        "(() => { const i = document.querySelector('#cells input');"
        f" i.value = {words!r}; i.dispatchEvent(new Event('input')); }})()"
    )
    shown = browser.evaluate("document.querySelectorAll('#cells tbody tr:not([hidden])').length")
    return shown, browser.evaluate("document.querySelector('#cells output').textContent")


def test_a_column_whose_name_has_an_underscore_is_filtered(browser, tmp_path):
    rates = (0.001, 5e-5)
    records = [
        record(cell(max_length=8 * n, learning_rate=rate)) for n in range(1, 9) for rate in rates
    ]
    browser.open(written(tmp_path, records))
    assert "learning_rate" in browser.evaluate(HEADS)
    for words in ("learning_rate=0.001", "learning_rate=5e-5", "learning_rate>0.0001"):
        assert typed(browser, words) == (8, "8 of 16 rows")
    assert typed(browser, "length=8 learning_rate=0.001") == (1, "1 of 16 rows")


def hostile_records():
    plain = cell()
    strange = Cell.model_validate(plain.model_dump() | {"attn_implementation": HOSTILE})
    renamed = plain.model_dump()
    renamed["model"]["source"]["reference"] = HOSTILE
    renamed["data"]["source"]["reference"] = HOSTILE
    first = Cell.model_validate(renamed)
    failed = record(
        Cell.model_validate(renamed | {"train_size": 8}),
        status="crashed",
        measurement=None,
        failure=Failure(message=HOSTILE, log_tail=HOSTILE),
    )
    warned = measurement(warnings=(run_warning(HOSTILE),), sources={"peak_rss_bytes": HOSTILE})
    return [
        record(first, measurement=warned),
        record(strange),
        record(strange, replicate=1),
        failed,
    ]


def test_what_records_say_is_only_text(browser, tmp_path):
    file = written(tmp_path, hostile_records(), damaged=[HOSTILE])
    browser.open(file)
    assert_quiet(browser, file)
    assert browser.evaluate("document.title") == "ftbench: test"
    assert browser.evaluate("document.querySelectorAll('img, [onerror], [onload]').length") == 0
    assert browser.evaluate("document.querySelectorAll('script').length") == 3
    said = browser.evaluate("document.body.textContent")
    assert said.count(HOSTILE) >= 4


def test_a_script_that_were_put_in_would_not_run(report, browser, tmp_path):
    text = report.read_text()
    bad = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    file = tmp_path / "report.html"
    file.write_text(text.replace("<main>", f"<main>{bad}"))
    browser.open(file)
    assert browser.evaluate("document.title") == "ftbench: test"
    assert any("Content Security Policy" in line for line in browser.console)


def test_the_same_records_are_the_same_bytes(report, tmp_path):
    records = synthetic.records((64, 128, 256), (4, 8, 16), (100, 300, 1000, 3000), replicates=3)
    groups, curves = fits(records)
    again = written(tmp_path, records, groups=groups, fitted_curves=curves, **EVIDENCE)
    assert again.read_bytes() == report.read_bytes()
