import pytest
from pydantic import ValidationError

from ftbench.records.environment import Environment
from ftbench.records.invariants import broken_invariants
from ftbench.records.measurement import NOISY, Measurement
from ftbench.records.readings import Memory
from ftbench.records.record import Record
from tests.factories import cell, environment, measurement, record, run_warning


def test_a_record_survives_json():
    one = record()
    assert Record.model_validate_json(one.model_dump_json()) == one


def test_identity_is_cell_replicate_and_repeat():
    assert record(replicate=2, repeat=1).identity == (cell().cell_id, 2, 1)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [((0, 0, 0), "-r0"), ((1, 0, 0), "-r1"), ((1, 2, 0), "-r1-t2"), ((0, 0, 3), "-r0.3")],
)
def test_files_of_different_runs_have_different_names(numbers, name):
    replicate, repeat, attempt = numbers
    one = record(replicate=replicate, repeat=repeat, attempt=attempt)
    assert one.file_name == cell().cell_id + name


@pytest.mark.parametrize("bad", ["../../etc", "ca6cb733575b/x", "", "CA6CB733575B", "ca6cb733575"])
def test_a_cell_id_is_no_path(bad):
    with pytest.raises(ValidationError):
        record(cell_id=bad)


def test_noise_is_a_reason_to_run_a_cell_again():
    def noisy(*names, **changes):
        run_warnings = tuple(run_warning(name=name) for name in names)
        return record(measurement=measurement(warnings=run_warnings), **changes).noisy

    assert not noisy()
    assert not noisy("loader_processes", "diverged")
    assert all(noisy(name) for name in NOISY)
    assert noisy(untrusted={"memory.peak_rss_bytes": "zero"})


def test_a_record_knows_its_axis_values():
    assert record(cell(weight_decay=0.1)).axis_value("weight_decay") == 0.1


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="Extra inputs"):
        Record.model_validate(record().model_dump(mode="json") | {"speed": 1})


def test_the_environment_is_named_by_content_but_not_by_commit():
    assert environment().environment_id == environment(git_commit="abc").environment_id
    assert environment().environment_id != environment(cores=4).environment_id
    before = environment().model_dump(mode="json")
    del before["variables"]  # as environments were written once
    assert Environment.model_validate(before) == environment()
    tuned = environment(variables={"MALLOC_ARENA_MAX": "2"})
    assert tuned.environment_id != environment().environment_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"cell": cell(max_length=512)},
        {"seed": 7},
        {"measurement": None},
        {"status": "oom"},
    ],
)
def test_a_record_agrees_with_itself(wrong):
    data = record().model_dump() | wrong
    with pytest.raises(ValidationError):
        Record.model_validate(data)


# Ranks


def of_two_ranks(**second):
    first = measurement()
    other = first.ranks[0].model_copy(update={"rank": 1} | second)
    return first.model_copy(update={"ranks": (*first.ranks, other)})


def test_what_has_to_fit_is_the_largest_of_the_ranks():
    memory = Memory(peak_rss_bytes=2**31, peak_pss_bytes=5)
    phases = {
        name: phase.model_copy(update={"memory": memory if name == "train" else phase.memory})
        for name, phase in measurement().phases.items()
    }
    both = of_two_ranks(memory=memory, phases=phases)
    assert both.memory == memory
    assert both.phases["train"].memory == memory
    assert both.phases["load"].memory == measurement().phases["load"].memory
    assert both.phases["train"].wall_s == measurement().phases["train"].wall_s
    assert both.steps == measurement().steps


def test_the_ranks_are_numbered_from_nought():
    data = of_two_ranks().model_dump(mode="json")
    assert Measurement.model_validate(data).ranks[1].rank == 1
    data["ranks"][1]["rank"] = 0
    with pytest.raises(ValidationError, match="ranks"):
        Measurement.model_validate(data)
    with pytest.raises(ValidationError, match="ranks"):
        Measurement.model_validate(data | {"ranks": []})


def test_one_rank_is_changed_and_the_others_stay():
    changed = of_two_ranks().with_rank(1, model_device="GPU-2")
    assert [rank.model_device for rank in changed.ranks] == ["cpu", "GPU-2"]
    with pytest.raises(TypeError):
        changed.with_rank(0, nothing=1)


def test_a_rank_on_another_device_than_its_own_is_untrusted():
    assert "steps.median_s" in broken_invariants(record(measurement=of_two_ranks(model_device="x")))
    assert broken_invariants(record(measurement=of_two_ranks())) == {}


def test_examples_of_training_are_those_of_all_ranks_and_of_an_evaluation_are_not():
    first = measurement()
    counted = {
        name: phase.model_copy(update={"samples": 40, "real_tokens": 100, "energy_j": 2.0})
        for name, phase in first.phases.items()
    }
    first = first.with_rank(phases=counted)
    other = first.ranks[0].model_copy(update={"rank": 1})
    both = first.model_copy(update={"ranks": (*first.ranks, other)})
    assert (both.phases["train"].samples, both.phases["train"].real_tokens) == (80, 200)
    assert (both.phases["evaluation"].samples, both.phases["evaluation"].energy_j) == (40, 4.0)
    assert both.phases["train"].padded_tokens is None
    assert both.phases["train"].wall_s == first.phases["train"].wall_s


def test_the_steps_of_several_ranks_are_those_of_all_together():
    both = of_two_ranks()
    together = both.ranks[0].steps.model_copy(update={"samples_per_s": 32.0})
    assert both.steps == both.ranks[0].steps
    assert both.model_copy(update={"together": together}).steps == together
