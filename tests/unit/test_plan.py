from bench import plan as module
from bench.errors import HubUnreachable
from bench.plan import plan_grid, plan_json, plan_table
from tests.factories import profile


def test_a_plan_lists_every_cell_by_id():
    of = profile(run={"replicates": 2})
    grid, unresolved = plan_grid(of, {})
    assert unresolved is None
    table = plan_table(of, grid, resolved=True)
    assert table.columns == ("cell", "length", "batch", "documents")
    assert [row[0] for row in table.rows] == [cell.cell_id for cell in grid.cells]
    assert "2 replicates each" in table.title


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

    monkeypatch.setattr(module, "resolve_model", unreachable)
    of = profile()
    grid, unresolved = plan_grid(of, {})
    assert isinstance(unresolved, HubUnreachable)
    assert len(plan_table(of, grid, resolved=False).rows) == 4
    assert plan_json(of, grid, resolved=False)["cells"][0]["cell_id"] is None
