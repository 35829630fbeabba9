"""What names a cell, and what tells it apart: its task and its texts."""

from tests.factories import cell


def test_a_task_is_in_a_cell_s_name_and_facets_unless_it_is_the_first_one():
    """Cells had one task once: their names stay."""
    before = cell()
    data = before.data.model_copy(update={"task": "text-regression"})
    other = before.model_copy(update={"data": data})
    assert other.cell_id != before.cell_id
    assert "task" not in before.facets
    assert before.value("task") == "text-classification"
    assert other.facets["task"] == other.value("task") == "text-regression"


def test_a_pair_is_another_cell_than_its_first_text():
    of = cell()
    pair = of.data.model_copy(update={"text_column": ("text", "other")})
    assert of.model_copy(update={"data": pair}).cell_id != of.cell_id


def test_settings_of_files_are_left_out_of_a_cell_s_name_at_their_defaults():
    """Older cells did not have them."""
    before = cell()
    changes = {
        "separator": ";",
        "encoding": "latin-1",
        "drop_rows_without_label": True,
        "drop_rows_without_text": True,
    }
    ids = {before.cell_id}
    for name, value in changes.items():
        other = before.model_copy(update={"data": before.data.model_copy(update={name: value})})
        ids.add(other.cell_id)
        assert name not in before.facets
        assert other.facets[name] == value
    assert before.cell_id == "ca6cb733575b"
    assert len(ids) == 5
