import pytest

from ftbench.base.errors import WorkerError, WorkloadError
from ftbench.execute.engines.base import Outcome
from ftbench.execute.outcome import parse_result, require_answer
from ftbench.records.measurement import Measurement
from ftbench.records.messages import Progress, RankPosition
from tests.factories import measurement


def outcome(**changes):
    fields = {"answer": None, "refusal": None, "exit_code": 0, "timed_out": False}
    return Outcome(**(fields | {"wall_s": 2.0, "log_tail": "the log"} | changes))


OK = {"status": "ok", "measurement": measurement().model_dump(mode="json")}


@pytest.mark.parametrize(
    ("came", "status", "message"),
    [
        (outcome(exit_code=-9), "crashed", "killed by signal 9"),
        (outcome(exit_code=-9, oom_killed=False), "crashed", "killed by signal 9"),
        (outcome(exit_code=-9, oom_killed=True), "oom", "its control group ran out of memory"),
        (outcome(exit_code=-11, oom_killed=True), "crashed", "killed by signal 11"),
        (outcome(exit_code=3), "crashed", "exit code 3"),
        (outcome(exit_code=None), "crashed", "exit code None"),
        (outcome(timed_out=True, exit_code=-9, oom_killed=True), "timeout", "time limit"),
        (outcome(refusal=WorkloadError("gone")), "invalid", "gone"),
        (outcome(answer={"status": "ok", "measurement": {"speed": 1}}), "invalid", "measurement"),
        (outcome(answer={"status": "ok"}), "invalid", "not a valid measurement"),
        (outcome(answer={"status": "fine"}), "invalid", "not a valid measurement"),
        (outcome(answer={}), "invalid", "not a valid measurement"),
        (outcome(answer={"status": "oom"}), "invalid", "not a valid measurement"),
        (outcome(answer={"status": "oom", "failure": {"message": "m", "step": 7}}), "oom", "m"),
    ],
)
def test_every_end_has_a_status(came, status, message):
    found = parse_result(came, "measurement", Measurement)
    assert found.status == status
    assert found.result is None
    assert message in found.failure.message
    assert found.failure.log_tail == "the log"


def test_an_answer_is_a_result():
    found = parse_result(outcome(answer=OK), "measurement", Measurement)
    assert (found.status, found.result, found.failure) == ("ok", measurement(), None)


def test_numbers_that_are_none_are_no_answer():
    answer = {"status": "ok", "measurement": OK["measurement"] | {"total_s": float("nan")}}
    assert parse_result(outcome(answer=answer), "measurement", Measurement).status == "invalid"


def test_where_it_was_last_heard_of():
    found = parse_result(
        outcome(exit_code=-9, last=Progress(phase="train", step=4)), "measurement", Measurement
    )
    assert (found.failure.phase, found.failure.step) == ("train", 4)


def test_secrets_do_not_get_into_a_failure(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-the-hub")
    answer = {"status": "crashed", "failure": {"message": "401 for a-token-of-the-hub"}}
    for came in (outcome(answer=answer), outcome(refusal=WorkloadError("a-token-of-the-hub"))):
        assert "a-token" not in parse_result(came, "measurement", Measurement).failure.message


def test_an_answer_that_a_command_needs(tmp_path):
    found = measurement()
    came = outcome(answer=found.model_dump(mode="json"))
    assert require_answer(came, "stage", Measurement, None) == found
    with pytest.raises(WorkloadError, match="not there"):
        require_answer(outcome(refusal=WorkloadError("not there")), "stage", Measurement, None)
    with pytest.raises(WorkerError, match="the stage ended without an answer"):
        require_answer(outcome(exit_code=3), "stage", Measurement, tmp_path)
    with pytest.raises(WorkerError, match="an answer that is not valid"):
        require_answer(outcome(answer={"steps": "many"}), "stage", Measurement, None)


LOGS = {"rank_log_tails": ("log of 0", "log of 1")}


def at(*collectives):
    ranks = [RankPosition(phase="train", step=5 + n, collectives=n) for n in collectives]
    return Progress(phase="train", step=9, ranks=tuple(ranks))


def test_a_rank_that_failed_is_told_with_the_end_of_its_log():
    answer = {"status": "crashed", "failure": {"message": "m", "rank": 1}}
    found = parse_result(outcome(answer=answer, **LOGS), "measurement", Measurement).failure
    assert (found.rank, found.log_tail) == (1, "log of 1")


def test_at_the_time_limit_it_is_the_rank_that_the_others_wait_for():
    came = outcome(timed_out=True, exit_code=-9, last=at(4, 3), **LOGS)
    found = parse_result(came, "measurement", Measurement)
    assert found.status == "timeout"
    assert (found.failure.rank, found.failure.step, found.failure.log_tail) == (1, 8, "log of 1")
    assert "rank 1" in found.failure.message


def test_ranks_that_are_all_slow_have_no_culprit():
    came = outcome(timed_out=True, exit_code=-9, last=at(4, 4), **LOGS)
    failure = parse_result(came, "measurement", Measurement).failure
    assert (failure.rank, failure.step, failure.log_tail) == (None, 9, "the log")


def test_positions_mean_nothing_if_the_launcher_itself_was_killed():
    came = outcome(exit_code=-9, last=at(4, 3), **LOGS)
    assert parse_result(came, "measurement", Measurement).failure.rank is None
