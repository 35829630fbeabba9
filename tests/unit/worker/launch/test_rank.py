import json

import pytest

from ftbench.plan.parallel import Parallel
from ftbench.records.messages import LaunchRequest, of_rank
from ftbench.worker.launch import rank
from ftbench.worker.launch.main import threads_of
from tests.factories import cell


def request(strategy="ddp", **body):
    several = cell(num_processes=2, strategy=strategy)
    return LaunchRequest(
        module="m",
        request={"cell": several.model_dump(mode="json"), **body},
        processes=2,
        log="logs/name.log",
    )


def test_the_name_of_a_ranks_own_file():
    assert of_rank("logs/a-r0.1.log", 1) == "logs/a-r0.1-rank1.log"


def test_each_rank_writes_files_of_its_own():
    asked = request(steps_file="steps/a.parquet", samples_file="samples/a.parquet", output="o")
    first, second = (rank.request_of(asked, number) for number in range(2))
    # The cell's table of steps is that of all ranks; the samples that reports show are rank 0's.
    assert first["steps_file"] == "steps/a-rank0.parquet"
    assert second["steps_file"] == "steps/a-rank1.parquet"
    assert first["samples_file"] == "samples/a.parquet"
    assert second["samples_file"] == "samples/a-rank1.parquet"
    assert first["output"] == second["output"] == "o"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_strategy_is_settings_of_the_trainer(strategy):
    settings = dict(rank.request_of(request(strategy), 1)["cell"]["training"])
    asked = Parallel(strategy=strategy).arguments
    assert {name: json.loads(settings[name]) for name in asked} == asked
    assert ("fsdp" in settings) == (strategy == "fsdp2")


def test_a_rank_sees_its_card_only(monkeypatch):
    assert rank.rank_variables(("GPU-a", "GPU-b"), 1, 4) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b",
        "LOCAL_RANK": "0",
    }


def test_a_rank_on_the_cpu_has_threads_and_the_loopback_interface(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    of_cpu = {"OMP_NUM_THREADS": "4", "GLOO_SOCKET_IFNAME": "lo"}
    assert rank.rank_variables((), 1, 4) == of_cpu
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    assert rank.rank_variables((), 1, 4)["GLOO_SOCKET_IFNAME"] == "eth0"


def test_a_failure_of_any_length_goes_through_a_pipe():
    long = {"status": "crashed", "failure": {"message": "\N{SNOWMAN}" * 10**6, "step": 3}}
    text = rank._short(long)
    assert len(text) <= rank.PIPE_BYTES
    assert json.loads(text)["failure"]["step"] == 3


def test_threads_are_shared_unless_they_are_named(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of(number) for number in (2, 3, 16)] == [4, 2, 1]
    for named, threads in {"3": 3, " 3,2": 3, "0": 4, "-1": 4, "many": 4, "": 4}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", named)
        assert threads_of(2) == threads


@pytest.mark.parametrize("character", ["x", "\x01", "é", "\U0001f600"])
def test_a_failure_fits_into_a_pipe_whatever_its_message_is_written_in(character):
    answer = {"status": "crashed", "failure": {"message": character * 10**6, "phase": "train"}}
    assert len(rank._short(answer)) < rank.PIPE_BYTES
