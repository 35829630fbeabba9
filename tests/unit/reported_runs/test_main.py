"""The session's verdict on planted lists, with answers in place of real commands."""

import pytest

from tests.reported_runs import __main__ as session
from tests.reported_runs.acceptance import Answer

HEADER = "report,gpus,task,features\n"
EXPRESSED, NOT = '1,1,causal,"amp16,ckpt"\n', "2,1,causal,compile\n"


@pytest.fixture
def answers(monkeypatch):
    """The answer that every command gets; a list of the distinct commands that were asked."""
    asked, answer = [], {"is": Answer(2**20)}

    def ask_all(commands, processes):
        asked.extend(dict.fromkeys(commands))
        return dict.fromkeys(commands, answer["is"])

    monkeypatch.setattr(session, "ask_all", ask_all)
    return asked, answer


def verdict(tmp_path, *rows):
    file = tmp_path / "reports.csv"
    file.write_text(HEADER + "".join(rows))
    return session.main([str(file)])


@pytest.mark.parametrize(("expressed", "code"), [(3, 0), (2, 1)])
def test_three_in_four_are_enough(tmp_path, answers, capsys, expressed, code):
    rows = [EXPRESSED] * expressed + [NOT] * (4 - expressed)
    assert verdict(tmp_path, *rows) == code
    assert f"{expressed} of 4 reports are expressed: {expressed / 4:.0%}" in capsys.readouterr().out
    assert len(answers[0]) == 1


def test_reports_on_several_cards_are_not_judged(tmp_path, answers, capsys):
    assert verdict(tmp_path, EXPRESSED, "3,N,causal,dist\n") == 0
    assert "1 of 1 reports" in capsys.readouterr().out


def test_a_command_that_is_not_accepted_does_not_count_and_fails_the_session(
    tmp_path, answers, capsys
):
    answers[1]["is"] = Answer(None, "no such setting")
    assert verdict(tmp_path, EXPRESSED) == 1
    printed = capsys.readouterr().out
    assert "0 of 1 reports" in printed
    assert "(not accepted: no such setting)" in printed


def test_reports_with_an_assumption_are_counted_apart(tmp_path, answers, capsys):
    assert verdict(tmp_path, EXPRESSED, "4,1,causal,triton\n") == 0
    assert "1 of them without an assumption: 50%" in capsys.readouterr().out
