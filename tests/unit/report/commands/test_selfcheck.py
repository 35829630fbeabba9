"""The page of a self-check: what it says of each row, and what it asks for."""

import pytest

from ftbench.records.selfcheck import CheckedFigure, RowAnswer, Selfcheck, SelfcheckRow
from ftbench.report.commands.selfcheck import (
    figures_table,
    machine_lines,
    row_line,
    rows_table,
    selfcheck_markdown,
    summary,
    to_send,
)
from tests.factories import MIB, figure
from tests.unit.selfcheck.made import machine

PEAK = CheckedFigure(
    name="requested", unit="byte", measured=3 * MIB, predicted=figure(2), agrees=False
)


def row(name, status, *figures, **fields):
    answer = RowAnswer(status=status, figures=figures, **fields)
    return SelfcheckRow(name=name, about="what it does", seconds=2.0, answer=answer)


PASSED = row("cell-a", "ok", CheckedFigure(name="cells", unit="count", measured=4))
FAILED = row("cell-b", "failed", PEAK, reason="it is | off", send=("cell-b/snapshot.pickle",))
LEFT_OUT = row("ddp", "left out", reason="needs 2 cards, there is 1")


def page(*rows, complete=True):
    return Selfcheck(
        ftbench="0.1.0",
        machine=machine(torch="2.13.0", datasets=None),
        rows=rows,
        budget_s=480,
        seconds=6.0,
        complete=complete,
    )


def test_the_machine_with_what_is_missing():
    cards, versions, missing = machine_lines(page())
    assert "NVIDIA L4 (16.0 GiB, compute capability 8.9)" in cards
    assert "580.00" in versions
    assert "torch 2.13.0" in versions
    assert missing == "missing: datasets"


def test_rows_are_counted_by_their_result():
    assert summary(page(PASSED, FAILED, LEFT_OUT)).startswith("1 ok, 1 failed, 1 left out, in 6")
    assert summary(page(PASSED)) != summary(page(PASSED, complete=False))


def test_each_row_has_its_result_and_reason():
    found = rows_table(page(PASSED, FAILED, LEFT_OUT)).rows
    assert [line[:2] for line in found] == [
        ("cell-a", "ok"),
        ("cell-b", "failed"),
        ("ddp", "left out"),
    ]
    assert found[2][-1] == "needs 2 cards, there is 1"
    assert row_line(FAILED).endswith("it is | off")


@pytest.mark.parametrize(
    ("one", "measured", "predicted", "agrees"),
    [
        (PEAK, "3,145,728 B", "2,097,152 B", "no"),
        (
            PEAK.model_copy(update={"predicted": figure(2, 1, 3), "agrees": True}),
            "3,145,728 B",
            "1,048,576 to 3,145,728 B",
            "yes",
        ),
        (CheckedFigure(name="a", unit="byte", measured=None), "–", "–", "–"),  # noqa: RUF001
        (CheckedFigure(name="a", unit="ratio", measured=1.00345), "1.003", "–", "–"),  # noqa: RUF001
        (CheckedFigure(name="a", unit="count", measured=1234.0), "1,234", "–", "–"),  # noqa: RUF001
        (CheckedFigure(name="a", unit="count", measured=0.01234), "0.0123", "–", "–"),  # noqa: RUF001
        (CheckedFigure(name="a", unit="s", measured=0.25), "250 ms", "–", "–"),  # noqa: RUF001
    ],
)
def test_a_figure_to_the_byte_or_with_its_interval(one, measured, predicted, agrees):
    ((_, _, *texts),) = figures_table(page(row("cell-a", "ok", one))).rows
    assert texts == [measured, predicted, agrees]


def test_what_to_send_is_on_the_page_only_if_a_row_failed():
    whole = page(PASSED, FAILED, LEFT_OUT)
    assert to_send(whole) == ["cell-b: cell-b/snapshot.pickle"]
    text = selfcheck_markdown(whole)
    assert "cell-b/snapshot.pickle" in text
    assert "it is \\| off" in text
    assert "What to send" not in selfcheck_markdown(page(PASSED, LEFT_OUT))


def test_a_page_is_read_as_it_was_written():
    whole = page(PASSED, FAILED, LEFT_OUT)
    assert Selfcheck.model_validate_json(whole.model_dump_json()) == whole
    assert whole.failed == (FAILED,)
