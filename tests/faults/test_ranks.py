"""Faults of one of two ranks: the cell has a status that names the rank, and no process is left."""

import pytest

from tests.rank_faults import (
    HUNG,
    KILLED,
    NO_MEMORY,
    RAISED,
    RANKS,
    STUCK,
    assert_nobody_lives,
    assert_told,
    run_with_faults,
)

TIMES = 2  # each fault on each rank: 20 in all


@pytest.mark.parametrize("number", range(TIMES))
@pytest.mark.parametrize(
    "kinds", [(KILLED, RAISED, NO_MEMORY), (HUNG, STUCK)], ids=["ends", "hangs"]
)
def test_a_rank_that_breaks_is_named_and_nobody_is_left(
    tmp_path, monkeypatch, reliability, kinds, number
):
    faults = [(rank, fault) for fault in kinds for rank in range(RANKS)]
    records, sessions = run_with_faults(tmp_path / "run", monkeypatch, faults)
    for record, (rank, fault) in zip(records, faults, strict=True):
        assert_told(record, rank, fault)
    assert_nobody_lives(sessions)
    for rank, fault in faults:
        reliability(
            f"rank {rank} of {RANKS} fails", f"{fault.how} at step 3", 1, f"`{fault.status}`"
        )
