"""The search over an engine that knows how much each batch takes."""

import json

import pytest

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.execute.batch_search import Frontier, shapes, with_batch
from ftbench.execute.engines.base import Outcome
from ftbench.execute.prepare import PREPARE
from ftbench.plan.devices import Placement
from ftbench.records.run_directory import RunDirectory
from ftbench.report.commands.frontier import frontier_table, write_frontier
from tests.engines import InstantEngine
from tests.factories import cell, device, environment, grid, preparation, profile

GIB = 2**30
MIB = 2**20


def outcome(**changes):
    fields = {"answer": None, "refusal": None, "exit_code": 0, "timed_out": False}
    return Outcome(**(fields | {"wall_s": 2.0, "log_tail": ""} | changes))


class Machine(InstantEngine):
    """Two steps take 1 GiB, and 1 MiB a document and token of length 16."""

    def __init__(self, limit="enforced", **prepared):
        self.limit = limit
        self.prepared = preparation(**prepared).model_dump(mode="json")
        self.tries = []
        self.ends = {}

    def run(self, module, request, *, memory_limit_bytes=None, **_):
        if module == PREPARE:
            return outcome(answer=self.prepared)
        body = json.loads(request)
        one = dict(body["cell"]["training"])
        batch, length = int(one["per_device_train_batch_size"]), body["cell"]["max_length"]
        self.tries.append((length, batch, memory_limit_bytes, body["memory_limit_bytes"]))
        if batch in self.ends:
            return self.ends[batch]
        peak = GIB + batch * length * MIB
        held = memory_limit_bytes or body["memory_limit_bytes"] or 16 * GIB
        if peak > held and self.limit == "enforced":
            return outcome(exit_code=-9, oom_killed=True, limit=self.limit)
        name = "peak_rss_bytes" if memory_limit_bytes else "peak_reserved_bytes"
        two_step = {"phases": {}, "memory": {name: peak}}
        return outcome(answer={"status": "ok", "two_step": two_step}, limit=self.limit)


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run")


def search(directory, machine, *, limit=2 * GIB, largest=4096, kind="cpu", **changes):
    where = Placement(kind=kind, devices=("GPU-1",) if kind == "cuda" else ())
    frontier = Frontier(
        profile(),
        grid(**changes),
        directory,
        machine,
        where,
        Silent(),
        limit_bytes=limit,
        largest=largest,
    )
    return frontier.run()


def test_each_length_has_its_largest_batch(directory):
    rows = search(directory, Machine())
    assert [(row.cell.max_length, row.edge.fits.batch) for row in rows] == [(16, 64), (32, 32)]
    assert all(row.edge.decided for row in rows)
    assert {one.limit for one in directory.tries()} == {"enforced"}


def test_the_host_holds_the_limit_by_a_group_and_a_card_by_torch(directory, tmp_path):
    machine = Machine()
    search(directory, machine)
    assert {(group, torch) for _, _, group, torch in machine.tries} == {(2 * GIB, None)}
    card = environment(device=device(kind="cuda", uuid="GPU-1", total_memory_bytes=16 * GIB))
    on_card = Machine(environment=card)
    other = RunDirectory.create(tmp_path / "card")
    assert search(other, on_card, kind="cuda")[0].edge.fits.batch == 64
    assert {(group, torch) for _, _, group, torch in on_card.tries} == {(None, 2 * GIB)}


def test_a_card_has_a_limit_of_its_own(directory):
    card = environment(device=device(kind="cuda", uuid="GPU-1", total_memory_bytes=16 * GIB))
    rows = search(directory, Machine(environment=card), limit=None, kind="cuda")
    assert rows[0].edge.fits.batch == 15 * 64


def test_the_cpu_needs_a_limit(directory):
    with pytest.raises(ProfileError, match="a memory limit is required"):
        search(directory, Machine(), limit=None)


def test_where_nothing_enforces_it_the_peak_is_judged_and_the_record_says_so(directory):
    rows = search(directory, Machine(limit="no control group is mounted"))
    assert [row.edge.fits.batch for row in rows] == [64, 32]
    assert {one.limit for one in directory.tries()} == {"no control group is mounted"}
    assert all(one.status == "ok" for one in directory.tries())
    assert "judged by the peak (no control group" in frontier_table(rows).rows[0][-1]


def test_tries_that_were_made_are_not_made_again(directory):
    first = Machine()
    rows = search(directory, first)
    again = Machine()
    assert search(directory, again) == rows
    assert again.tries == []
    other = Machine()
    search(directory, other, limit=3 * GIB)
    assert other.tries


def test_a_search_that_was_cut_off_goes_on(directory):
    rows = search(directory, Machine())
    files = sorted((directory.path / "tries").iterdir())
    edges = [rows[0].edge.fits, rows[1].edge.fails]
    directory.file("tries", edges[0].name, ".json").write_text("{")
    directory.file("tries", edges[1].name, ".json").unlink()
    machine = Machine()
    assert search(directory, machine) == rows
    assert 2 <= len(machine.tries) < len(files)


@pytest.mark.parametrize(
    "end", [outcome(timed_out=True, exit_code=-9), outcome(exit_code=-11), outcome(exit_code=1)]
)
def test_a_try_that_ends_otherwise_leaves_its_length_undecided(directory, end):
    machine = Machine()
    machine.ends[2] = end
    rows = search(directory, machine)
    assert [row.edge.undecided.batch for row in rows] == [2, 2]
    assert frontier_table(rows).rows[0][1] == "at least 1"


def test_a_refusal_of_the_workload_is_raised(directory):
    machine = Machine()
    machine.run = lambda *args, **kwargs: outcome(refusal=WorkloadError("no such column"))
    with pytest.raises(WorkloadError):
        search(directory, machine)


def test_other_axes_have_rows_of_their_own():
    cells = grid(
        grid=[
            {
                "max_length": [32, 16],
                "per_device_train_batch_size": [4, 8],
                "train_size": [16, 32],
                "attn_implementation": ["eager", "sdpa"],
                "seed": [1, 2],
            }
        ]
    )
    found = [(one.max_length, one.attn_implementation) for one in shapes(cells)]
    assert sorted(found) == [(16, "eager"), (16, "sdpa"), (32, "eager"), (32, "sdpa")]
    assert [length for length, _ in found] == [16, 16, 32, 32]


def test_a_cell_with_another_batch_is_another_cell():
    one = with_batch(cell(), 64)
    assert one.per_device_train_batch_size == 64
    assert one.train_size == 128
    assert one.cell_id != cell().cell_id
    assert with_batch(one, 64) == one


def test_the_table_says_what_fits_and_what_does_not(directory, tmp_path):
    rows = search(directory, Machine())
    table = frontier_table(rows)
    assert table.title == "Largest batch under 2.0 GiB"
    assert table.rows[0] == ("16", "64", "2.00 GiB", "65 (out of memory)", "enforced")
    csv, markdown = write_frontier(rows, tmp_path)
    assert "16,64,2147483648,65,oom" in csv.read_text()
    assert "| 16 | 64 |" in markdown.read_text()


def test_the_bound_of_the_search_is_said_to_be_one(directory):
    rows = search(directory, Machine(), largest=8)
    assert frontier_table(rows).rows[0][1] == "at least 8"
