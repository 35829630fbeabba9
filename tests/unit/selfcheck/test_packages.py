"""Which packages a row needs, and which are there."""

import pytest

from ftbench.selfcheck.packages import SHOWN, Needed, missing, versions
from ftbench.selfcheck.rows import ROWS


@pytest.mark.parametrize(
    ("version", "met"),
    [
        ("4.51.0", True),
        ("4.50.3", False),
        ("5.0.0", True),
        ("4.100.0+cu128", True),
        ("main", False),
        (None, False),
    ],
)
def test_a_version_is_met_by_itself_and_later_ones(version, met):
    needed = Needed("transformers", (4, 51))
    assert missing([needed], {"transformers": version}) == ([] if met else ["transformers>=4.51"])


def test_without_a_version_it_is_enough_that_it_is_there():
    assert missing([Needed("numpy"), Needed("pandas")], {"numpy": "main"}) == ["pandas"]


def test_what_rows_need_is_looked_for():
    assert {needed.name for row in ROWS for needed in row.needs} <= set(SHOWN)
    assert versions()["torch"] is not None
