import pytest

from ftbench.worker.launch.cause import cause_of
from ftbench.worker.launch.watch import End

LOST = "RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5"
LATE = (
    "RuntimeError: [../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv"
)


def failed(message, status="crashed"):
    return {"status": status, "failure": {"message": message, "phase": "train", "step": 3}}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_a_rank_that_says_why_is_the_cause_whoever_ended_first(rank, first):
    other = 1 - rank
    order = [rank, other] if first else [other, rank]
    answers = {rank: failed("ValueError: planted"), other: failed(LOST)}
    found = cause_of([End(number, 1) for number in order], answers)
    assert found["status"] == "crashed"
    told = {"message": f"rank {rank}: ValueError: planted", "rank": rank}
    assert found["failure"] == {"phase": "train", "step": 3} | told


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_was_killed_is_the_cause_although_the_other_has_an_error(rank):
    ends = [End(rank, -9), End(1 - rank, 1)]
    found = cause_of(ends, {1 - rank: failed(LOST)})
    assert found["failure"] == {"message": f"rank {rank} was killed by signal 9", "rank": rank}
    assert cause_of(ends[::-1], {1 - rank: failed(LOST)}) == found


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 1, 2)])
def test_those_that_the_launcher_ended_are_not_the_cause(order):
    codes = {2: 1, 0: -15, 1: -15}
    ends = [End(rank, codes[rank]) for rank in order]
    found = cause_of(ends, {2: failed("out of memory", "oom")})
    assert (found["status"], found["failure"]["rank"]) == ("oom", 2)


def test_the_first_of_two_own_errors_is_the_cause():
    answers = {0: failed("ValueError: zero"), 1: failed("ValueError: one")}
    assert cause_of([End(1, 1), End(0, 1)], answers)["failure"]["rank"] == 1


def test_a_rank_that_did_not_come_in_time_is_the_cause():
    found = cause_of([End(0, 1), End(1, -9)], {0: failed(LATE)})
    assert (found["status"], found["failure"]["rank"]) == ("timeout", 1)
    assert "Timed out waiting" in found["failure"]["message"]


def test_without_another_cause_it_is_the_lost_connection():
    answers = {0: failed(LOST), 1: failed(LOST)}
    assert cause_of([End(1, 1), End(0, 1)], answers)["failure"]["rank"] == 1


@pytest.mark.parametrize(
    ("code", "how"),
    [(3, "without an answer, exit code 3"), (None, "without an answer"), (-11, "by signal 11")],
)
def test_how_a_silent_rank_ended(code, how):
    assert how in cause_of([End(1, code), End(0, -15)], {})["failure"]["message"]


def test_nothing_known_is_a_crash_of_no_rank():
    assert cause_of([], {}) == {
        "status": "crashed",
        "failure": {"message": "a rank ended without an answer", "rank": None},
    }
