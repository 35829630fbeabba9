"""A rank that dies, hangs, raises or runs out of memory ends its cell, is named, and leaves no process.

Long, since `nox -s faults` does the same, and CI runs that.
"""

import pytest

from tests.rank_faults import (
    HUNG,
    KILLED,
    NO_MEMORY,
    RAISED,
    RANKS,
    assert_nobody_lives,
    assert_told,
    run_with_faults,
)

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_the_record_names_the_rank_and_nobody_is_left(tmp_path, monkeypatch):
    kinds = (KILLED, RAISED, NO_MEMORY, HUNG)
    faults = [(rank, fault) for fault in kinds for rank in range(RANKS)]
    records, sessions = run_with_faults(tmp_path / "run", monkeypatch, faults)
    for record, (rank, fault) in zip(records, faults, strict=True):
        assert_told(record, rank, fault)
    assert len(sessions) == len(faults)
    assert_nobody_lives(sessions)
