"""What was planted in a recording is named, with its line, its bytes and its place."""

import dataclasses
from collections.abc import Callable

import pytest

from ftbench.base.units import MIB
from ftbench.records.prediction import CardPrediction, PredictedBytes
from ftbench.snapshot.compare import compare
from ftbench.snapshot.frames import Frame
from ftbench.snapshot.result import Comparison, Difference
from tests.simulated_snapshot import Act, Recorder, record
from tests.unit.snapshot.made import (
    LAYERS,
    acts,
    changed,
    compared,
    exact,
    predicted,
    prediction,
    read,
    run,
)

HOME = "/home/user/project/"
KEPT = 1_500_004  # the activation of an odd layer
STEPS = 7


def _planted(change: Callable[[Act], list[Act]], steps: int = STEPS) -> Comparison:
    found = compared(changed(acts(run(steps)), change))
    moved = sum(one.peak_bytes for one in found.differences)
    moved += sum(one.live_bytes for one in found.earlier)
    assert moved == found.snapshot_bytes - found.predicted_bytes
    by_line = sum(one.snapshot_bytes - one.predicted_bytes for one in found.by_line)
    assert by_line == moved
    assert found.ordered
    assert found.exit_code == 1
    return found


def _only(found: Comparison) -> Difference:
    (one,) = found.differences
    return one


def _is(act: Act, name: str, layer: int) -> bool:
    return act.name[0] == name and act.name[-1] == layer


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 25])
def test_a_recording_of_any_number_of_steps_agrees(steps: int) -> None:
    found = compared(acts(run(steps)))
    assert found.agrees
    assert found.exit_code == 0
    how = found.agreement
    assert how.recorded == how.alike == how.equal == len(predicted(run(steps)).nbytes)
    assert how.equal_bytes == how.recorded_bytes
    assert (how.beyond, how.unaligned, how.skipped) == (0, 0, 0)
    assert found.snapshot_bytes == found.predicted_bytes


def test_an_evaluation_after_many_steps_agrees() -> None:
    found = compared(acts(run(12, evaluation=True)), allocations=predicted(run(3, evaluation=True)))
    assert found.agrees
    assert found.agreement.not_reached == 0


def test_a_tensor_that_is_kept_and_not_predicted_is_named_by_its_line() -> None:
    def keeps(act: Act) -> list[Act]:
        if _is(act, "kept", 5) and not act.frees:
            return [act, Act(("copy", *act.name), KEPT, 0, f"{HOME}model.py:77")]
        return [act]

    one = _only(_planted(keeps))
    assert (one.kind, one.count, one.nbytes) == ("extra", STEPS, KEPT)
    assert one.frame == Frame(f"{HOME}model.py:77", "step")
    assert one.peak_bytes == STEPS * KEPT  # the recording's peak is in its last step
    assert one.part is None


def test_a_release_that_is_missing_is_named_by_the_line_that_allocated() -> None:
    def never(act: Act) -> list[Act]:
        return [] if _is(act, "kept", 5) and act.frees else [act]

    one = _only(_planted(never))
    assert (one.kind, one.count, one.nbytes) == ("kept", STEPS, KEPT)
    assert one.frame.source == f"{HOME}model.py:21"
    assert one.part is not None
    assert (one.part.role, one.part.operator) == ("activations", "addmm")
    assert one.peak_bytes == (STEPS - 1) * KEPT or one.peak_bytes == STEPS * KEPT


def test_a_release_that_comes_later_is_told() -> None:
    made = acts(run(STEPS))
    late = [act for act in made if act.frees and _is(act, "scratch", 3)]
    moved: list[Act] = []
    for act in made:
        if act in late:
            continue
        moved.append(act)
        if _is(act, "scratch", 6) and not act.frees:
            moved.append(Act(("scratch", act.name[1], 3), frees=True))
    one = _only(compared(moved))
    assert (one.kind, one.count, one.nbytes) == ("freed later", STEPS, 700_100)


def test_a_release_that_comes_earlier_is_told() -> None:
    made = acts(run(STEPS))
    early = [act for act in made if act.frees and _is(act, "kept", 3)]
    moved: list[Act] = []
    for act in made:
        if act in early:
            continue
        moved.append(act)
        if _is(act, "kept", 6) and not act.frees:
            moved.append(Act(("kept", act.name[1], 3), frees=True))
    one = _only(compared(moved))
    assert (one.kind, one.count, one.nbytes) == ("freed earlier", STEPS, KEPT)
    assert one.peak_bytes <= 0


def test_another_element_type_is_another_size() -> None:
    def upcast(act: Act) -> list[Act]:
        wider = _is(act, "kept", 5) and not act.frees
        return [dataclasses.replace(act, nbytes=2 * act.nbytes) if wider else act]

    one = _only(_planted(upcast))
    assert (one.kind, one.count) == ("size", STEPS)
    assert (one.nbytes, one.expected_bytes) == (2 * KEPT, KEPT)
    assert one.part is not None
    assert one.part.role == "activations"


def test_another_stream_is_told_and_moves_no_bytes() -> None:
    def aside(act: Act) -> list[Act]:
        return [dataclasses.replace(act, stream=3) if _is(act, "scratch", 5) else act]

    one = _only(_planted(aside))
    assert (one.kind, one.count, one.nbytes, one.peak_bytes) == ("stream", STEPS, 700_100, 0)
    assert one.frame.source == f"{HOME}model.py:22"


def test_all_of_it_on_a_stream_of_its_own_agrees() -> None:
    found = compared([dataclasses.replace(act, stream=2) for act in acts(run(STEPS))])
    assert found.agrees


def test_the_workspace_of_a_library_has_no_line_and_is_told_by_its_size() -> None:
    workspace = 8_519_680  # :4096:2:16:8
    made = acts(run(STEPS))
    first = next(place for place, act in enumerate(made) if _is(act, "kept", 0))
    second = next(place for place, act in enumerate(made) if _is(act, "grad", LAYERS - 1))
    made.insert(second + 1, Act("autograd's", workspace))
    made.insert(first + 1, Act("forward's", workspace))
    one = _only(compared(made))
    assert (one.kind, one.count, one.nbytes) == ("extra", 2, workspace)
    assert one.peak_bytes == 2 * workspace
    assert one.frame.source == ""


def test_what_is_predicted_and_not_there_is_named_by_its_part() -> None:
    def without(act: Act) -> list[Act]:
        return [] if _is(act, "m", 4) else [act]

    found = _planted(without)
    one = _only(found)
    assert (one.kind, one.count, one.nbytes) == ("missing", 1, 0)
    assert one.part is not None
    assert (one.part.role, one.part.source) == ("optimizer state", "train.py:40")
    assert one.peak_bytes == -one.expected_bytes


def test_several_changes_are_told_apart() -> None:
    def all_of_them(act: Act) -> list[Act]:
        if _is(act, "scratch", 2) and not act.frees:
            return [act, Act(("extra", *act.name), 123_456, 0, f"{HOME}hook.py:1")]
        if _is(act, "kept", 8) and not act.frees:
            return [dataclasses.replace(act, nbytes=KEPT + 400_000)]
        if _is(act, "kept", 9) and act.frees:
            return []
        return [act]

    found = _planted(all_of_them)
    assert {one.kind: one.count for one in found.differences} == {
        "extra": STEPS,
        "size": STEPS,
        "kept": STEPS,
    }
    first = min(found.differences, key=lambda one: one.first)
    assert first.kind == "extra"
    assert first.first == LAYERS + 1 + 2 * 3  # weights, the batch, and two of each of three layers


@pytest.mark.parametrize("last", [150, 300, 600])
def test_a_ring_buffer_that_lost_its_start_is_aligned_and_said(last: int) -> None:
    recorder = record(acts(run(STEPS)))
    recorder.keep_last(last)
    found = compared(recorder)
    assert found.agrees
    assert found.begins == "later"
    assert found.agreement.skipped > 0
    assert found.agreement.beyond == 0
    assert found.earlier_blocks > 0
    assert found.snapshot_bytes == found.predicted_bytes


def test_a_recording_that_is_switched_on_after_the_set_up_agrees() -> None:
    made = acts(run(STEPS))
    recorder = record(made[:LAYERS])
    recorder.begin_recording()
    found = compared(record(made[LAYERS:], recorder))
    assert found.agrees
    assert (found.earlier_blocks, found.agreement.skipped) == (LAYERS, LAYERS)


def test_blocks_from_before_have_no_line_and_differ_in_none() -> None:
    made = acts(run(STEPS))
    recorder = record([dataclasses.replace(act, source="") for act in made[:LAYERS]])
    recorder.begin_recording()
    found = compared(record(made[LAYERS:], recorder))
    assert {one.snapshot_bytes - one.predicted_bytes for one in found.by_line} == {0}
    assert "" in {one.source for one in found.by_line}


def test_a_difference_after_a_lost_start_is_named() -> None:
    def keeps(act: Act) -> list[Act]:
        if act.name == ("kept", STEPS, 5) and not act.frees:
            return [act, Act("copy", 999_424, 0, f"{HOME}model.py:77")]
        return [act]

    recorder = record(changed(acts(run(STEPS)), keeps))
    recorder.keep_last(300)
    one = _only(compared(recorder))
    assert (one.kind, one.count, one.nbytes, one.peak_bytes) == ("extra", 1, 999_424, 999_424)


def test_a_difference_soon_after_a_lost_start_is_named() -> None:
    made = acts(run(STEPS))
    place = next(at for at, act in enumerate(made) if act.name == ("grad", 4, 6))
    recorder = record(made[:place])
    recorder.begin_recording()
    rest = [*made[place : place + 4], Act("copy", 999_424, 0, f"{HOME}model.py:77")]
    found = compared(record([*rest, *made[place + 4 :]], recorder))
    one = _only(found)
    assert (one.kind, one.first, one.nbytes) == ("extra", 2, 999_424)
    assert not found.earlier


def test_a_block_from_before_the_recording_is_named_if_it_is_not_predicted() -> None:
    recorder = Recorder()
    recorder.alloc("another model", 33 * MIB, source=f"{HOME}teacher.py:5")
    made = acts(run(STEPS))
    record(made[:LAYERS], recorder)
    recorder.begin_recording()
    found = compared(record(made[LAYERS:], recorder))
    (one,) = found.earlier
    assert (one.nbytes, one.count, one.live_bytes) == (33 * MIB, 1, 33 * MIB)
    assert one.frame.source == f"{HOME}teacher.py:5"
    assert not found.differences
    assert found.exit_code == 1


def test_running_out_of_memory_is_a_finding() -> None:
    made = acts(run(STEPS))
    recorder = record(made[:200])
    recorder.out_of_memory(4_040_192, 1 * MIB, f"{HOME}model.py:21")
    found = compared(recorder)
    (failure,) = found.out_of_memory
    assert (failure.nbytes, failure.device_free) == (4_040_192, 1 * MIB)
    assert failure.row == sum(not act.frees for act in made[:200])
    assert not found.differences
    assert found.exit_code == 1


def test_expandable_segments_are_seen() -> None:
    recorder = record(acts(run(STEPS)), Recorder(expandable=True))
    found = compared(recorder)
    assert found.agrees
    assert found.expandable
    assert found.unexplained_blocks == 0
    assert found.figures[3].peak_bytes == recorder.allocator.peak_reserved


def test_of_two_devices_each_is_compared_by_itself() -> None:
    right, wrong = Recorder(), Recorder(device=1)
    record(acts(run(STEPS)), right)
    record(
        [*acts(run(STEPS)), Act("more", 7 * MIB, 0, f"{HOME}train.py:99"), Act("last", 1)], wrong
    )
    snapshot = read(right, wrong)
    expected = prediction(predicted(run(3)))
    assert compare(snapshot, 0, expected).agrees
    found = compare(snapshot, 1, expected)
    assert found.agreement.beyond == 2
    assert found.device == 1


def test_a_private_pool_is_counted() -> None:
    recorder = record(acts(run(STEPS)))
    recorder.alloc("graph", 5 * MIB, stream=9)
    recorder.private.add(recorder._live["graph"].pool)
    found = compared(recorder)
    assert (found.private_rows, found.private_bytes) == (1, 20 * MIB)


def test_another_program_is_compared_by_category_only() -> None:
    other = [Act(name, 70_000 + 516 * name, 0, f"{HOME}other.py:{name % 3}") for name in range(400)]
    found = compared(other)
    assert not found.ordered
    assert not found.differences
    assert found.exit_code == 1
    lines = {one.source: one for one in found.by_line}
    assert lines[f"{HOME}other.py:1"].snapshot_bytes == sum(
        act.nbytes for act in other if act.name % 3 == 1
    )
    weights = sum(one.nbytes for one in acts(run(0)))
    assert lines["train.py:10"].predicted_bytes == weights


def test_segments_without_events_are_compared_by_category() -> None:
    recorder = record(acts(run(0)))
    recorder.begin_recording()
    found = compared(recorder)
    assert not found.has_events
    lines = {one.source: one for one in found.by_line}
    assert lines[f"{HOME}train.py:10"].snapshot_bytes == sum(one.nbytes for one in acts(run(0)))


def _card(**fields: PredictedBytes) -> CardPrediction:
    return CardPrediction(
        gpu="made", capacity_low_bytes=1, capacity_high_bytes=1, verdict="fits", **fields
    )


@pytest.mark.parametrize(
    ("figure", "when", "add"),
    [
        ("requested", "peak", 3),
        ("allocated", "peak", -3),
        ("reserved", "peak", 3),
        ("process", "peak", 300 * MIB),
        ("allocated", "end", 3),
    ],
)
def test_an_observed_number_is_recognised(figure: str, when: str, add: int) -> None:
    recorder = record(acts(run(STEPS)))
    peak, end = recorder.allocator, recorder.allocator
    base = {
        "requested": peak.peak_requested,
        "allocated": peak.peak_allocated if when == "peak" else end.allocated,
        "reserved": peak.peak_reserved,
        "process": peak.peak_reserved,
    }[figure]
    context = PredictedBytes(
        value_bytes=900 * MIB, low_bytes=850 * MIB, high_bytes=950 * MIB, certainty="interval"
    )
    card = _card(requested=exact(1), allocated=exact(1), reserved=exact(600 * MIB), process=context)
    expected = prediction(predicted(run(3)), cards=(card,))
    (found,) = compare(read(recorder), 0, expected, [base + add]).nearest
    assert (found.name, found.when) == (figure, when)
    assert found.observed_bytes == base + add
    assert found.distance_bytes == (0 if figure == "process" else add)


def test_without_a_card_the_process_is_not_known() -> None:
    recorder = record(acts(run(STEPS)))
    (found,) = compared(recorder, observed=[recorder.allocator.peak_reserved + 300 * MIB]).nearest
    assert found.name == "reserved"
    assert found.distance_bytes == 300 * MIB


def _large(number: int) -> list[Act]:
    """Return allocations that no prediction has, each of a size of its own, at one line."""
    return [
        Act(("large", place), 10**9 + 512 * place, 0, f"{HOME}leak.py:1") for place in range(number)
    ]


def test_what_comes_after_all_that_is_predicted_is_not_as_predicted() -> None:
    found = compared([*acts(run(STEPS)), *_large(60)])
    assert (found.agreement.beyond, found.differences) == (60, ())
    assert found.exit_code == 1


@pytest.mark.parametrize("number", [3, 60, 400])
def test_an_end_of_other_allocations_does_not_count_as_after_the_end(number: int) -> None:
    """The prediction ends with an evaluation of 13 allocations, of which the recording has none."""
    expected = predicted(run(3, evaluation=True))
    found = compared([*acts(run(3)), *_large(number)], allocations=expected)
    how = found.agreement
    assert how.beyond == 0
    assert how.unaligned + sum(one.count for one in found.differences) == number
    assert found.exit_code == 1


@pytest.mark.parametrize("rows", [1, 20, 40, 60])
def test_a_step_that_has_begun_is_compared(rows: int) -> None:
    begun = len(acts(run(STEPS)))
    made = acts(run(STEPS + 1))[: begun + rows]
    found = compared(made)
    assert found.agrees
    assert (found.agreement.beyond, found.agreement.equal) == (0, found.agreement.recorded)
    one = _only(compared([*made, *_large(1)]))
    assert (one.kind, one.count, one.nbytes) == ("extra", 1, 10**9)


def test_two_streams_that_are_one_in_the_recording_are_told() -> None:
    allocations = predicted(run(3))
    aside = [allocations.part(row).operator == "gelu" for row in range(len(allocations.nbytes))]
    streams = tuple(map(int, aside))
    found = compared(acts(run(3)), allocations.model_copy(update={"streams": streams}))
    one = _only(found)
    assert (one.kind, one.count) == ("stream", sum(aside))
    assert found.exit_code == 1


def test_two_streams_that_have_changed_places_are_the_same() -> None:
    allocations = predicted(run(3))
    aside = [allocations.part(row).operator == "gelu" for row in range(len(allocations.nbytes))]
    changed_places = changed(
        acts(run(3)),
        lambda act: [dataclasses.replace(act, stream=0 if act.name[0] == "scratch" else 5)],
    )
    streams = tuple(map(int, aside))
    assert compared(changed_places, allocations.model_copy(update={"streams": streams})).agrees
