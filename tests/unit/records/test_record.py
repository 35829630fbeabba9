import pytest
from pydantic import ValidationError

from ftbench.records.record import NOISY, Environment, Record
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
