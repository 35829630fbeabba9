import pytest

from bench.record import Record
from tests.factories import cell, environment, record


def test_a_record_survives_json():
    one = record()
    assert Record.model_validate_json(one.model_dump_json()) == one


def test_identity_is_cell_and_replicate():
    assert record(replicate=2).identity == (cell().cell_id, 2)


def test_a_record_knows_its_axis_values():
    assert record(cell(weight_decay=0.1)).axis_value("weight_decay") == 0.1


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="Extra inputs"):
        Record.model_validate(record().model_dump(mode="json") | {"speed": 1})


def test_the_environment_is_named_by_content_but_not_by_commit():
    assert environment().environment_id == environment(git_commit="abc").environment_id
    assert environment().environment_id != environment(cores=4).environment_id
