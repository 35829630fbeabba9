"""The runs of a directory and of a baseline: by cell, in order, and what is left out."""

import math

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline import SeedScore
from ftbench.gating.baseline_file import write_baseline
from ftbench.gating.compare_runs import compare_measured
from ftbench.gating.measured_runs import (
    Runs,
    Samples,
    kept_runs,
    machine_of,
    measured_of,
    read_kept_runs,
    runs_of,
)
from ftbench.gating.places import Place
from ftbench.gating.reasons import (
    CellMissing,
    CellsNotRun,
    EnvironmentsUnknown,
    RecordsUnreadable,
    RunsLeftOut,
)
from ftbench.gating.result import OutOfMemory
from tests.factories import cell, device, environment, grid, measurement, record
from tests.unit.gating.made import AXES, baseline_made, place, shape

PLACE = place(16, 4)


def gathered(*records, damaged=0):
    here = environment()
    return runs_of(records, {here.environment_id: here}, damaged)


# The runs of a directory


def test_runs_are_gathered_by_cell_in_the_order_they_began():
    later = record(
        repeat=1, measurement=measurement(step_median_s=2.0), started_at="2026-01-02T00:00:00"
    )
    first = record(measurement=measurement(step_median_s=1.0), started_at="2026-01-01T00:00:00")
    found = gathered(later, first).samples
    assert found[PLACE].figures["step_median_s"] == (1.0, 2.0)
    assert found[PLACE].started == ("2026-01-01T00:00:00", "2026-01-02T00:00:00")


def test_accuracy_has_a_value_a_seed():
    found = gathered(
        record(replicate=0, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=0, repeat=1, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=1, measurement=measurement(eval_accuracy=0.8)),
    )
    scores = found.samples[PLACE].scores
    assert {seed: one.value for seed, one in scores.items()} == {"42": 0.7, "43": 0.8}
    share = (0.7 * 8 + 2) / 12  # of 8 evaluation examples
    assert scores["42"].standard_error == pytest.approx(math.sqrt(share * (1 - share) / 8))


def test_runs_that_are_not_judged_are_told():
    wrong = record(replicate=1, untrusted={"total_s": "the clock jumped"})
    crashed = record(replicate=2, status="crashed", measurement=None)
    found = gathered(record(), wrong, crashed, damaged=2)
    assert len(found.samples[PLACE].started) == 1
    assert set(found.doubts) == {
        RunsLeftOut(1, "crashed"),
        RunsLeftOut(1, "untrusted"),
        RecordsUnreadable(2),
    }
    assert not found.complete
    assert gathered(record()).complete
    assert compare_measured("quick", gathered(record()), found).exit_code == 2


def test_a_cell_that_runs_out_of_memory_now_is_a_regression():
    after = gathered(record(status="oom", measurement=None))
    for before in (record(),), (record(), record(replicate=1, status="oom", measurement=None)):
        result = compare_measured("quick", gathered(*before), after)
        assert result.changes == (OutOfMemory(PLACE, "regression"),)
        assert not after.complete
        assert result.exit_code == 1
    assert not gathered(record(), record(replicate=1, status="oom", measurement=None)).complete


def test_a_new_cell_that_runs_out_of_memory_has_no_baseline():
    new = gathered(record(), record(cell(max_length=32), status="oom", measurement=None))
    result = compare_measured("quick", gathered(record()), new)
    assert result.exit_code == 2
    assert result.unjudged[0] == CellMissing(place(32, 4), "baseline")


def test_a_part_of_the_cells_has_the_places_of_the_grid():
    here = environment()
    both = [cell(attn_implementation=name) for name in ("eager", "sdpa")]
    of = {here.environment_id: here}
    full = runs_of([record(one) for one in both], of, grid=both)
    part = runs_of([record(both[0])], of, grid=both)
    chosen = runs_of([record(one) for one in both], of, grid=both, chosen=both[:1])
    assert set(part.samples) == set(chosen.samples) == set(full.only(both, both[:1]).samples)
    assert set(part.samples) == {place(16, 4, attn_implementation="eager")}


def test_runs_of_an_environment_that_is_gone_are_not_judged():
    lost = runs_of([record()], {})
    assert lost.doubts == (EnvironmentsUnknown((environment().environment_id,)),)
    assert compare_measured("quick", lost, lost).exit_code == 2


def test_cells_that_were_not_run_on_either_side_are_told():
    here = environment()
    wanted = [cell(), cell(max_length=32)]
    found = runs_of([record()], {here.environment_id: here}, wanted=wanted)
    assert found.doubts == (CellsNotRun(1),)


def test_cells_have_a_place_in_their_group():
    found = gathered(*(record(cell(attn_implementation=name)) for name in ("eager", "sdpa")))
    assert set(found.samples) == {
        place(16, 4, attn_implementation="eager"),
        place(16, 4, attn_implementation="sdpa"),
    }


def test_a_learning_rate_tells_cells_apart():
    found = gathered(*(record(cell(learning_rate=rate)) for rate in (1e-5, 1e-3)))
    assert len(found.samples) == 2


def test_where_runs_were_measured():
    card = device(kind="cuda", name="T4", uuid="GPU-1")
    here = environment(device=card, driver="550", packages={"torch": "2.13.0", "rich": "14"})
    found = machine_of([here, here.model_copy(update={"packages": {"torch": "2.14.0"}})])
    assert found == {"device": "T4", "driver": "550", "torch": "2.13.0 and 2.14.0"}


def test_the_workload_of_runs_is_what_all_cells_have_in_common_but_for_the_seed():
    found = gathered(record(), record(cell(max_length=32)))
    assert "seed" not in found.workload
    assert found.workload["eval_size"] == 8


def test_cuda_is_that_of_the_card_and_no_package():
    card = device(kind="cuda", name="T4", uuid="GPU-1")
    here = environment(device=card, cuda="12.8", packages={"torch": "2.13.0", "cuda": "11"})
    assert machine_of([here])["cuda"] == "12.8"


# What a baseline keeps


def test_what_is_kept_is_what_was_measured():
    settings = {"attn_implementation": "eager", "learning_rate": 1e-5}
    both = {
        Place(settings, shape(16, 4, 64)): Samples(
            {"total_s": (1.0, 2.0)}, ("a", "b"), "accuracy", {"42": SeedScore(value=0.5)}
        ),
        place(32, 4): Samples({}, (), "pearson", {}),
    }
    runs = Runs(both, {"device": "T4"}, {"eval_size": 8})
    again = kept_runs(measured_of(runs))
    assert again.samples.keys() == both.keys()
    first = again.samples[Place(settings, shape(16, 4, 64))]
    assert first.figures == {"total_s": (1.0, 2.0)}
    assert (first.score, first.scores) == ("accuracy", {"42": SeedScore(value=0.5)})
    assert again.samples[place(32, 4)].score == "pearson"
    assert first.started == ()  # when they began is not kept
    assert (again.machine, again.workload) == (runs.machine, runs.workload)


def test_kept_runs_of_chosen_cells_are_read_from_a_file(tmp_path):
    cells = grid(grid=[AXES]).cells
    measured = measured_of(gathered(*map(record, cells)))
    file = tmp_path / "x.json"
    write_baseline(baseline_made().model_copy(update={"measured": measured}), file)
    assert len(read_kept_runs(file, cells).samples) == 4
    short = [one for one in cells if one.max_length == 16]
    assert set(read_kept_runs(file, cells, short).samples) == {place(16, 4), place(16, 8)}


def test_a_baseline_without_runs_says_how_to_keep_some(tmp_path):
    file = tmp_path / "x.json"
    write_baseline(baseline_made(), file)
    with pytest.raises(BaselineError) as caught:
        read_kept_runs(file, grid(grid=[AXES]).cells)
    assert caught.value.where == str(file)
    assert "--runs" in caught.value.hint
