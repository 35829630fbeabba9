"""`ftbench check-snapshot` for real: a loop predicted in a worker, against snapshots of longer and other runs."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.cuda import _memory_viz

from ftbench.cli.subjects import subject_of
from ftbench.plan.gpus import find_gpu
from ftbench.prediction.breakdown.allocations import predicted_allocations
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.trace.steps import trace_steps
from ftbench.prediction.trace.tracer import Target
from ftbench.snapshot.compare import compare
from ftbench.snapshot.history import history_of
from ftbench.snapshot.snapshot_file import ALLOC, read_snapshot
from tests.integration.conftest import SMALL as SMALL_MODEL
from tests.integration.conftest import ftbench
from tests.simulated_snapshot import acts_of, record, snapshot_of, written
from tests.unit.snapshot.made import prediction

pytestmark = pytest.mark.integration

LOOP = Path(__file__).parents[2] / "examples" / "gpt.py"
SMALL = {"batch": 2, "width": 64, "layers": 2, "heads": 2, "length": 32}
BEFORE, AFTER = "return loss.detach()", "return scores.float()"
CARD = "a100-40gb"  # without a card, kernels are those of its generation


def _recorded(file, steps=6):
    """Return what a card would have recorded of so many steps of the loop in a file."""
    spec = importlib.util.spec_from_file_location("gpt", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    card = card_of(find_gpu(CARD))
    target = Target(compute_capability=card.runtime.compute_capability)
    traced = trace_steps(
        lambda device: module.make_step(device, **SMALL), target=target, steps=steps
    )
    return record(acts_of(predicted_allocations(traced, card.runtime)))


def _checked(folder, recorder, *arguments):
    file = written(snapshot_of(recorder), folder / "snapshot.pickle")
    given = [part for name, value in SMALL.items() for part in ("--arg", f"{name}={value}")]
    done = ftbench(
        "check-snapshot", file, "gpt.py:make_step", *given, "--json", *arguments, cwd=folder
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(LOOP, tmp_path / "gpt.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_twice_the_steps_is_as_predicted_of_three(folder):
    recorder = _recorded(folder / "gpt.py")
    code, found = _checked(folder, recorder, "--gpu", CARD)
    assert (code, found["differences"], found["agrees"]) == (0, [], True)
    how = found["agreement"]
    assert how["equal"] == how["recorded"] > 500
    assert how["beyond"] == 0
    figures = {row["name"]: row for row in found["figures"]}
    assert figures["allocated"]["peak_bytes"] == recorder.allocator.peak_allocated
    assert figures["reserved"]["peak_bytes"] == recorder.allocator.peak_reserved


def test_without_a_card_the_workspaces_are_what_is_not_predicted(folder):
    code, found = _checked(folder, _recorded(folder / "gpt.py"))
    assert code == 1
    assert {one["kind"] for one in found["differences"]} == {"extra"}
    assert all(one["frame"]["source"] == "" for one in found["differences"])


def test_a_change_of_a_line_is_named(folder):
    changed = folder / "changed" / "gpt.py"
    changed.parent.mkdir()
    changed.write_text(LOOP.read_text().replace(BEFORE, AFTER))
    code, found = _checked(folder, _recorded(changed), "--gpu", CARD)
    assert code == 1
    number = LOOP.read_text().splitlines().index(f"        {BEFORE}") + 1
    lines = {one["frame"]["source"].rpartition("/")[2] for one in found["differences"]}
    assert f"gpt.py:{number}" in lines
    moved = sum(one["peak_bytes"] for one in found["differences"])
    assert moved == found["snapshot_bytes"] - found["predicted_bytes"]


def test_what_torch_itself_writes_of_a_cpu_is_read_to_the_byte(tmp_path):
    """torch makes a snapshot of a profile, also of the CPU (`_memory_viz._profile_to_snapshot`)."""

    def make_step(device):
        model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 64)).to(device)
        batch, aims = torch.ones(96, 256, device=device), torch.ones(96, 64, device=device)

        def step():
            model(batch).backward(aims)

        return step

    step = make_step(torch.device("cpu"))
    with torch.profiler.profile(
        profile_memory=True, record_shapes=True, with_stack=True
    ) as profile:
        step()
    data = _memory_viz._profile_to_snapshot(profile)
    found = read_snapshot(written(data, tmp_path / "cpu.pickle"))
    number, memory = found.device(None, "cpu.pickle")
    asked = [e["size"] for e in data["device_traces"][number] if e["action"] == "alloc"]
    assert [e.nbytes for e in memory.events if e.action == ALLOC] == asked
    history = history_of(memory)
    live = sum(
        block["requested_size"]
        for segment in data["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    )
    assert history.at_end.requested == live
    assert history.rows.nbytes == asked
    traced = trace_steps(make_step, steps=1)
    compared = compare(found, number, prediction(predicted_allocations(traced, None)))
    assert compared.agrees
    assert compared.agreement.equal == compared.agreement.recorded == len(asked)
    assert compared.agreement.skipped == compared.earlier_blocks == 6  # weights, batch and aims


def test_a_cell_of_a_profile_is_compared_with_its_own_trainer(tmp_path):
    cell = "max_length=64,per_device_train_batch_size=16,train_size=64"
    settings = [f"{name}={value}" for name, value in SMALL_MODEL.items()]
    card = find_gpu(CARD)
    asked = subject_of("quick", cell, overrides=settings, option="--cell")
    (one,) = asked.predictions([card], allocations=True).cells
    recorder = record(acts_of(one.allocations))
    assert recorder.allocator.peak_allocated == one.cards[0].allocated.value_bytes
    assert recorder.allocator.peak_reserved == one.cards[0].reserved.value_bytes
    file = written(snapshot_of(recorder), tmp_path / "snapshot.pickle")
    given = [part for text in settings for part in ("--set", text)]
    command = ("check-snapshot", file, "quick", "--cell", cell, *given, "--gpu", CARD, "--json")
    done = ftbench(*command)
    assert done.returncode == 0, done.stderr + done.stdout
    how = json.loads(done.stdout)["agreement"]
    assert how["equal"] == how["recorded"] == len(one.allocations.nbytes)
    recorder.free(max(recorder._live))
    recorder.alloc("more", 3 << 20, source="/home/me/callback.py:4")
    written(snapshot_of(recorder), file)
    done = ftbench(*command)
    assert json.loads(done.stdout)["agreement"]["beyond"] == 1
