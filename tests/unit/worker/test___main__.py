"""A worker by hand: the answer on stdout, all else on stderr, an exit code for what is refused."""

import json

import pytest

from ftbench.worker.__main__ import main

WORKER = "tests.unit.execute.engines.odd_worker"


@pytest.fixture
def request_file(tmp_path, monkeypatch):
    def write(**what):
        monkeypatch.setenv("FTBENCH_TEST", "before")
        asked = {"module": WORKER, "environment": {"FTBENCH_TEST": "set"}, "request": what}
        file = tmp_path / "request.json"
        file.write_text(json.dumps(asked))
        return str(file)

    return write


def test_the_answer_alone_is_on_stdout(request_file, capsys):
    assert main([request_file(do="answer")]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out[said.out.index("{") :])
    assert answer["asked"] == {"do": "answer"}
    assert answer["environment"] == "set"
    assert "printed" not in said.out
    assert "step=3" in said.err


def test_a_refusal_has_its_exit_code(request_file, capsys):
    assert main([request_file(do="refuse")]) == 2
    assert "no such column" in capsys.readouterr().err


def test_without_a_file_it_says_how(capsys):
    assert main([]) == 2
    assert "REQUEST.json" in capsys.readouterr().err
