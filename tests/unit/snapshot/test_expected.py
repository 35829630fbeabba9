"""A prediction of three steps expects every further one, with the lifetimes that a run of that many would have."""

import pytest

from ftbench.snapshot.expected import expected_of
from tests.unit.snapshot.made import predicted, run


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("steps", [3, 4, 11])
def test_steps_that_are_repeated_are_those_of_a_longer_run(steps: int, *, evaluation: bool) -> None:
    short = predicted(run(3, evaluation=evaluation))
    longer = predicted(run(steps, evaluation=evaluation))
    found, _ = expected_of(short, longer.nbytes, whole=True)
    assert found.nbytes.tolist() == list(longer.nbytes)
    assert found.ended.tolist() == list(longer.ended)
    assert found.streams.tolist() == list(longer.streams)
    alike = [(short.part_names[part].role, short.part_names[part].source) for part in found.parts]
    assert alike == [
        (longer.part(row).role, longer.part(row).source) for row in range(len(longer.nbytes))
    ]


def test_no_step_is_added_to_what_was_recorded() -> None:
    short = predicted(run(3))
    found, _ = expected_of(short, predicted(run(1)).nbytes, whole=True)
    assert len(found) == len(short.nbytes)


def test_a_step_more_is_expected_as_well() -> None:
    short, longer = predicted(run(3)), predicted(run(6))
    found, more = expected_of(short, longer.nbytes, whole=True)
    assert len(more) - len(found) == len(predicted(run(7)).nbytes) - len(longer.nbytes)


def test_steps_that_differ_are_not_repeated() -> None:
    short = predicted(run(2))  # the first makes the optimizer's state
    (found,) = expected_of(short, predicted(run(9)).nbytes, whole=True)
    assert len(found) == len(short.nbytes)


def test_a_recording_without_its_beginning_may_be_of_any_step() -> None:
    short, longer = predicted(run(3)), predicted(run(9))
    found = expected_of(short, longer.nbytes[200:], whole=False)
    step = len(predicted(run(4)).nbytes) - len(short.nbytes)
    assert max(map(len, found)) >= len(short.nbytes) + (len(longer.nbytes) - 200) // step * step


def test_what_is_live_is_counted_after_each_allocation() -> None:
    made = predicted(run(3))
    found, _ = expected_of(made, made.nbytes, whole=True)
    live, sums = {}, []
    rows = dict(enumerate(made.ended))
    for row, nbytes in enumerate(made.nbytes):
        live = {name: size for name, size in live.items() if rows[name] != row}
        live[row] = nbytes
        sums.append(sum(live.values()))
    assert found.requested.tolist() == sums
