from pathlib import Path

import pytest

from ftbench.base.errors import ProfileError
from ftbench.execute.ranks import (
    launch_of,
    rank_behind,
    rank_logs,
    require_devices,
    require_one_process,
)
from ftbench.plan.devices import Placement
from ftbench.records.messages import RankPosition, TwoStepRequest
from tests.factories import cell, preparation

CPU = Placement(kind="cpu")
TWO_CARDS = Placement(kind="cuda", devices=("GPU-a", "GPU-b"))


def test_ddp_runs_on_the_cpu_and_every_strategy_on_cards():
    require_devices([cell(), cell(num_processes=4)], CPU)
    require_devices(
        [cell(num_processes=2, strategy=name) for name in ("ddp", "fsdp2", "fsdp1")], TWO_CARDS
    )


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_sharding_on_the_cpu_is_refused_since_accelerate_would_not_shard(strategy):
    with pytest.raises(ProfileError, match=f"cards only(?s:.*){strategy}"):
        require_devices([cell(num_processes=2, strategy=strategy)], CPU)


def test_more_processes_than_cards_are_refused():
    with pytest.raises(ProfileError, match=r"more processes than cards(?s:.*)3(?s:.*)at most 2"):
        require_devices([cell(num_processes=3)], TWO_CARDS)


def test_a_verb_that_runs_one_process_refuses_two():
    require_one_process([cell()], "frontier")
    with pytest.raises(ProfileError, match="frontier"):
        require_one_process([cell(num_processes=2)], "frontier")


def test_the_launcher_is_asked_what_one_process_would_be():
    of = cell(num_processes=2)
    asked = TwoStepRequest(
        cell=of,
        seed=1,
        device="cuda",
        preparation=preparation(),
        workspace="/w",
        output="o",
        tensors=True,
    )
    three = Placement(kind="cuda", devices=("GPU-a", "GPU-b", "GPU-c"))
    found = launch_of("a.module", asked, of, three, "name")
    assert found.module == "a.module"
    assert TwoStepRequest.model_validate(found.request) == asked
    assert (found.processes, found.devices) == (2, ("GPU-a", "GPU-b"))
    assert found.path(found.log) == "/w/logs/name.log"


def test_every_rank_has_a_log_beside_the_launchers():
    assert rank_logs(Path("/w/logs/name.log"), 1) == ()
    assert rank_logs(Path("/w/logs/name.log"), 2) == (
        Path("/w/logs/name-rank0.log"),
        Path("/w/logs/name-rank1.log"),
    )


@pytest.mark.parametrize(
    ("counts", "behind"),
    [
        ((7, 6), 1),
        ((6, 7), 0),
        ((7, None), 1),
        ((7, 7), None),
        ((6, 6, 7), None),
        ((7, 6, 7), 1),
        ((7,), None),
        ((), None),
    ],
)
def test_the_rank_that_others_wait_for_has_begun_fewer_collectives(counts, behind):
    assert rank_behind([RankPosition(collectives=count) for count in counts]) == behind
