"""What it costs to compare a snapshot of 100,000 events with its prediction, beyond the prediction itself."""

from __future__ import annotations

import time

import pytest

from ftbench.snapshot.compare import compare
from ftbench.snapshot.snapshot_file import read_snapshot
from tests.benchmarks import report
from tests.simulated_snapshot import Act, Recorder, record, snapshot_of, written
from tests.unit.snapshot.made import acts, changed, predicted, prediction, run

EVENTS = 100_000
COMPARED_S = 10.0


def recorded(*, differs: bool) -> Recorder:
    """Return the events of a run; one that `differs` has allocations more in each of its steps."""

    def change(act: Act) -> list[Act]:
        if not differs or act.frees or act.name[0] != "kept":
            return [act]
        if act.name[-1] == 5:
            space = ("space", *act.name)
            return [act, Act(space, 8_519_680), Act(space, frees=True)]
        return [act, Act(("mask", *act.name), 77_824, 0, "/x/model.py:9")][: 1 + act.name[-1] % 2]

    steps = 100
    recorder = record(changed(acts(run(steps)), change))
    steps = steps * EVENTS // len(recorder.events) + 10  # the first has some more
    return record(changed(acts(run(steps)), change))


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "without its beginning"])
@pytest.mark.parametrize("differs", [False, True], ids=["as predicted", "different in each step"])
def test_a_snapshot_of_100_000_events(differs, lost, tmp_path):
    recorder = recorded(differs=differs)
    if lost:
        recorder.keep_last(EVENTS)
    file = written(snapshot_of(recorder), tmp_path / "snapshot.pickle")
    expected = prediction(predicted(run(3)))
    events = len(recorder.events)
    del recorder
    began = time.perf_counter()
    snapshot = read_snapshot(file)
    read = time.perf_counter()
    found = compare(snapshot, 0, expected)
    done = time.perf_counter()
    report.show(
        f"a snapshot of {events:,} events ({file.stat().st_size / 2**20:.0f} MiB): seconds",
        {"read": read - began, "compared": done - read, "both": done - began, "bar": COMPARED_S},
    )
    assert events >= EVENTS
    assert found.ordered
    assert found.agrees is not differs
    assert done - began <= COMPARED_S
