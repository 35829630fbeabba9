import subprocess
import sys

import pytest

from tests.documents import ROOT
from tests.site.built import problems


@pytest.fixture
def site(tmp_path):
    """Two pages, as zensical lays them out, and a file; returns a function that gives the first its body."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h1 id="part">x</h1>')
    (tmp_path / "a table.csv").write_text("")

    def with_body(body):
        (tmp_path / "index.html").write_text(f'<meta name="top"><p id="here">{body}</p>')
        return tmp_path

    return with_body


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other/">x</a>',
        '<a href="other/#part">x</a>',
        '<a href="/other/">x</a>',
        '<a href="#here">x</a>',
        '<a href="a%20table.csv">x</a>',
        '<a href="https://example.org/">x</a><a href="mailto:a@example.org">x</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<img src="data:image/png;base64,AAAA">',
    ],
)
def test_what_is_there_is_no_problem(site, body):
    assert problems(site(body)) == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('<a href="none/">x</a>', "none/"),
        ('<a href="other/#none">x</a>', "other/#none"),
        ('<a href="#none">x</a>', "#none"),
        ('<img src="none.png">', "none.png"),
        ('<script src="none.js"></script>', "none.js"),
        ('<script src="https://example.org/a.js"></script>', "https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "//example.org/a.css"),
        ('<img src="https://example.org/a.png">', "https://example.org/a.png"),
    ],
)
def test_what_is_lost_or_loaded_from_elsewhere_is_named(site, body, named):
    (problem,) = problems(site(body))
    assert problem.startswith("index.html: ")
    assert named in problem


@pytest.mark.parametrize(
    ("body", "code"), [('<a href="other/">x</a>', 0), ('<a href="y">x</a>', 1)]
)
def test_the_exit_code_says_whether_there_is_a_problem(site, body, code):
    command = [sys.executable, "-m", "tests.site.built", str(site(body))]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == code
