"""`ftbench run` in this process, with an engine that answers at once."""

import pytest

from ftbench.execute.engines.base import Outcome
from ftbench.execute.prepare import PREPARE
from ftbench.execute.runner import CELL
from tests.engines import InstantEngine
from tests.factories import measurement, preparation


class Answering(InstantEngine):
    """In the place of `LocalEngine`: every cell has one measurement, and no two-step pass succeeds."""

    def __init__(self, measured):
        self._answers = {
            PREPARE: preparation().model_dump(mode="json"),
            CELL: {"status": "ok", "measurement": measured.model_dump(mode="json")},
        }

    def run(self, module, request, **options):
        answer = self._answers.get(module)
        return Outcome(
            answer=answer,
            refusal=None,
            exit_code=0 if answer else 1,
            timed_out=False,
            wall_s=10.5,
            log_tail="",
        )


@pytest.mark.parametrize(("accuracy", "code"), [(0.75, 0), (1.5, 1)])
def test_a_run_with_untrusted_figures_ends_with_1(command, tmp_path, monkeypatch, accuracy, code):
    engine = Answering(measurement(eval_accuracy=accuracy))
    monkeypatch.setattr("ftbench.execute.engines.local.LocalEngine", lambda *options: engine)
    ended, _, err = command("run", "smoke", "--out", tmp_path / "run")
    assert ended == code, err


def test_a_run_with_nothing_left_to_do_starts_no_server(command, tmp_path, monkeypatch):
    """The server imports torch, ten seconds of a processor."""
    engine, started = Answering(measurement()), []
    monkeypatch.setattr(Answering, "warm_up", lambda self: started.append("server"))
    monkeypatch.setattr("ftbench.execute.engines.local.LocalEngine", lambda *options: engine)
    for _ in range(2):
        assert command("run", "smoke", "--out", tmp_path / "run")[0] == 0
        assert started == ["server"]
