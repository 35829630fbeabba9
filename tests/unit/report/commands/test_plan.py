from ftbench.base.errors import HubUnreachable
from ftbench.plan import resolve
from ftbench.plan.resolve import plan_grid
from ftbench.records.token_facts import token_facts
from ftbench.report.commands.plan import plan_json, plan_table, texts_table
from ftbench.report.elements.table import ABSENT
from tests.factories import figure, predicted_cell, predictions, profile


def test_a_plan_lists_every_cell_by_id():
    of = profile(run={"replicates": 2})
    grid, unresolved = plan_grid(of, {})
    assert unresolved is None
    table = plan_table(of, grid, resolved=True)
    assert table.columns == ("cell", "length", "batch", "training examples")
    assert [row[0] for row in table.rows] == [cell.cell_id for cell in grid.cells]
    assert "2 replicates each" in table.title


def test_cells_that_differ_only_in_training_examples_are_one_row():
    of = profile(
        grid=[{"max_length": [16, 32], "train_size": [64, 128], "per_device_train_batch_size": [4]}]
    )
    grid, _ = plan_grid(of, {})
    table = plan_table(of, grid, resolved=True, predicted=predictions(grid))
    assert [row[1] for row in table.rows] == ["16", "32"]
    assert {row[table.columns.index("training examples")] for row in table.rows} == {"64, 128"}
    assert table.rows[0][0] == f"{grid.cells[0].cell_id} +1"
    assert table.title == "test: 4 cells"


def test_a_plan_as_json():
    of = profile()
    grid, _ = plan_grid(of, {"max_length": 32})
    data = plan_json(of, grid, resolved=True)
    assert data["axes"]["max_length"] == [16, 32]
    assert [cell["max_length"] for cell in data["cells"]] == [32, 32]
    assert data["cells"][0]["cell_id"] == grid.cells[0].cell_id


def test_a_plan_without_the_hub_has_cells_but_no_ids(monkeypatch):
    def unreachable(workload):
        raise HubUnreachable("no network")

    monkeypatch.setattr(resolve, "resolve_model", unreachable)
    of = profile()
    grid, unresolved = plan_grid(of, {})
    assert isinstance(unresolved, HubUnreachable)
    assert len(plan_table(of, grid, resolved=False).rows) == 4
    assert plan_json(of, grid, resolved=False)["cells"][0]["cell_id"] is None


def test_a_plan_with_what_is_predicted():
    of = profile()
    grid, _ = plan_grid(of, {})
    _, *others = grid.cells
    varying = figure(90, 80, 90, certainty="interval")
    cells = [predicted_cell(others[0].cell_id, tensors=varying)]
    cells += [predicted_cell(cell.cell_id) for cell in others[1:]]
    predicted = predictions(grid, cells=cells)  # all but the first
    table = plan_table(of, grid, resolved=True, predicted=predicted)
    assert table.columns[-1] == "predicted GPU peak (tensors)"
    assert len(table.numeric) == len(table.columns)
    texts = [row[-1] for row in table.rows]
    assert texts == [ABSENT, "90.0 MiB (80.0 MiB to 90.0 MiB)", "90.0 MiB", "90.0 MiB"]
    data = plan_json(of, grid, resolved=True, predicted=predicted)["cells"]
    assert data[0]["predicted"] is None
    assert data[1]["predicted"] == varying.model_dump(mode="json")


def test_a_plan_without_a_prediction_has_no_word_of_one():
    of = profile()
    grid, _ = plan_grid(of, {})
    assert all("predicted" not in cell for cell in plan_json(of, grid, resolved=True)["cells"])


def test_a_plan_says_what_each_length_makes_of_the_texts():
    of = profile()
    grid, _ = plan_grid(of, {})
    told = token_facts([8, 24], [16, 32], of=2).by_length
    predicted = predictions(grid).model_copy(update={"by_length": told})
    table = texts_table(grid, predicted)
    assert table.rows == (("16", "50.0%", "25.0%"), ("32", "0.0%", "50.0%"))
    data = plan_json(of, grid, resolved=True, predicted=predicted)
    assert data["lengths"] == [
        {"max_length": 16, "cut": 0.5, "padding": 0.25},
        {"max_length": 32, "cut": 0.0, "padding": 0.5},
    ]


def test_a_plan_that_read_no_texts_says_nothing_of_them():
    of = profile()
    grid, _ = plan_grid(of, {})
    assert texts_table(grid, predictions(grid)) is None
    assert "lengths" not in plan_json(of, grid, resolved=True)
