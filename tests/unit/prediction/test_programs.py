"""The worker's side of programs: JSON in, JSON out; figures of real traces, each set of arguments by itself."""

import json
import multiprocessing
import sys

import pytest
import torch
from torch import nn

from ftbench.base.errors import ProfileError, ProgramError, WorkerError
from ftbench.plan.gpus import find_gpu
from ftbench.plan.programs import Program, program_grid
from ftbench.prediction import largest_value
from ftbench.prediction import programs as module
from ftbench.prediction.breakdown.parts import breakdown
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.simulate.simulation import Simulated, simulate
from ftbench.prediction.trace import tracer
from ftbench.records.prediction import Predictions, ProgramRequest
from tests.factories import predicted_card

TEXT = """
import torch
from torch import nn

seen = []
print("the program prints")

def make_step(device, batch=4, width=64, leak=False):
    seen.append(batch)
    more = torch.zeros(1024 * len(seen), device=device)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    inputs = torch.zeros(batch, width, device=device)
    kept = []

    def step():
        assert len(more)
        loss = model(inputs).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if leak:
            kept.append(inputs + 1)
        return loss

    return step

def moody(device, batch):
    if batch == 3:
        raise ValueError("not three")
    return make_step(device, batch)

def reading(device, batch):
    tensor = torch.ones(batch, device=device)
    return (lambda: tensor.nonzero()) if batch == 3 else make_step(device, batch)

def slow(device, batch):
    if batch == 3:
        raise ValueError("not three")
    import time
    time.sleep(60)

def asking(device):
    hopper = torch.cuda.get_device_capability() >= (9, 0)
    tensor = torch.zeros(2048 if hopper else 1024, device=device)
    return lambda: tensor + 1

def hopper_only(device):
    if torch.cuda.get_device_capability() < (9, 0):
        torch.nonzero(torch.zeros(4, device=device))
    return asking(device)

def dying(device, batch):
    if batch == 3:
        import os
        os._exit(9)
    return make_step(device, batch)
"""


def make_step(device, batch=4, width=64):
    more = torch.zeros(1024, device=device)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    inputs = torch.zeros(batch, width, device=device)

    def step():
        assert len(more)
        loss = model(inputs).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


@pytest.fixture(autouse=True)
def interpreter(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    (tmp_path / "own_loop.py").write_text(TEXT)
    yield
    sys.modules.pop("own_loop", None)


def ask(*assignments, factory="make_step", steps=None, gpus=(), said=None, **options):
    grid = program_grid(Program(file="own_loop.py", factory=factory), assignments, steps)
    cards = tuple(map(find_gpu, gpus))
    request = ProgramRequest(
        program=grid.program, cells=grid.cells, gpus=cards, processes=2, **options
    )
    emit = (lambda progress: None) if said is None else said.append
    answer = module.main(json.loads(request.model_dump_json()), emit)
    return grid, Predictions.model_validate(json.loads(json.dumps(answer)))


def own_trace(steps=tracer.STEPS, target=None, **arguments):
    return tracer.trace(lambda device: make_step(device, **arguments), steps=steps, target=target)


def test_the_figure_is_that_of_the_same_steps_traced_in_code():
    _, answer = ask()
    traced = own_trace()
    (found,) = answer.cells
    assert found.tensors.value_bytes == found.tensors.low_bytes == traced.peak_bytes
    assert (found.tensors.certainty, found.source) == ("exact", "traced")
    assert found.live_blocks == traced.peak_blocks
    assert answer.versions == traced.versions
    assert (found.composition, found.breakdown, found.growth) == (None, None, None)


def test_each_set_of_arguments_is_traced_as_if_it_were_alone():
    """The file's tensors grow with every call of its factory: a second trace in one process would be larger."""
    grid, answer = ask("batch=[4, 16, 64]")
    assert [one.cell_id for one in answer.cells] == [cell.cell_id for cell in grid.cells]
    assert [one.tensors.value_bytes for one in answer.cells] == [
        own_trace(batch=batch).peak_bytes for batch in (4, 16, 64)
    ]


def test_a_card_s_figures_are_those_of_its_simulation():
    _, answer = ask(gpus=("t4", "h100"))
    cards = answer.cells[0].cards
    assert [card.gpu for card in cards] == ["t4", "h100"]
    for found in cards:
        card = card_of(find_gpu(found.gpu))
        target = tracer.Target(compute_capability=card.runtime.compute_capability)
        played = simulate(own_trace(target=target), runtime=card.runtime)
        assert found.reserved.value_bytes == played.peak_reserved_bytes
        assert found.verdict == "fits"


@pytest.mark.parametrize(
    ("gpus", "floats"), [((), 1024), (("t4", "h100"), 1024), (("h100", "t4"), 2048)]
)
def test_code_that_asks_for_the_card_is_traced_for_each_and_tensors_are_those_of_the_first(
    gpus, floats
):
    _, answer = ask(factory="asking", gpus=gpus)
    (found,) = answer.cells
    kept_and_two_results = 3 * 4
    assert found.tensors.value_bytes == kept_and_two_results * floats
    requested = {card.gpu: card.requested.value_bytes for card in found.cards}
    assert requested == {
        gpu: kept_and_two_results * (2048 if gpu == "h100" else 1024) for gpu in gpus
    }


def test_cards_that_may_choose_other_kernels_are_a_note():
    _, answer = ask(gpus=("t4", "h100"))
    assert answer.notes[0].startswith("tensors: as on t4")
    assert ask(gpus=("rtx-3060", "rtx-3090"))[1].notes == ()


def test_a_card_without_room_is_told():
    _, answer = ask("batch=1000000", "width=4096", gpus=("t4",))
    assert answer.cells[0].cards[0].verdict == "does not fit"


def test_steps_parts_and_lines_are_those_asked_for():
    grid, answer = ask(steps=5, explain=True)
    found = answer.cells[0]
    assert found.composition.phases[-1][1] == "step 5"
    named = {share.name for share in found.composition.lines}
    assert {name.partition(":")[0] for name in named} == {"own_loop.py"}
    total = sum(share.nbytes for share in found.composition.lines)
    assert total == found.tensors.value_bytes
    wanted = grid.cells[0].cell_id
    _, answer = ask(steps=5, breakdown_of=(wanted,))
    bytes_of = {part.name: part.nbytes for part in answer.cells[0].breakdown.parts}
    assert bytes_of == {part.name: part.nbytes for part in breakdown(own_trace(steps=5)).parts}


def test_what_steps_keep_ever_more_of_is_told():
    _, answer = ask("leak=[false, true]", "batch=256")
    without, leaking = answer.cells
    assert without.growth is None
    assert leaking.growth.nbytes == 256 * 64 * 4
    assert leaking.growth.parts[0].source == "own_loop.py:23"


def test_progress_names_the_file_and_each_set_of_arguments():
    said = []
    ask("batch=[4, 16]", said=said)
    assert [one.phase for one in said] == [
        "loading own_loop.py",
        "tracing own_loop.py:make_step(batch=4)",
        "tracing own_loop.py:make_step(batch=16)",
    ]


@pytest.mark.parametrize("batches", ["3", "[2, 3, 4]"])
def test_a_factory_that_raises_ends_in_one_error_with_its_lines(batches):
    with pytest.raises(ProgramError) as raised:
        ask(f"batch={batches}", factory="moody")
    assert raised.value.what == "ValueError: not three"
    assert raised.value.where == "own_loop.py:moody(batch=3)"
    assert raised.value.got == "own_loop.py:30, in moody"


def test_after_an_error_no_other_process_is_left():
    with pytest.raises(ProgramError, match="not three"):
        ask("batch=[3, 4, 5]", factory="slow")
    assert multiprocessing.active_children() == []


def test_a_card_that_refuses_a_program_keeps_no_other_card_from_answering():
    _, answer = ask(factory="hopper_only", gpus=("t4", "h100"))
    (cell,) = answer.cells
    assert [card.gpu for card in cell.cards] == ["h100"]
    (refused,) = answer.refused_cards
    assert (refused.gpus, answer.refused) == (("t4",), ())


def test_the_largest_value_of_an_argument_is_searched_beside_each_of_the_others(monkeypatch):
    room = {64: own_trace(batch=9).peak_bytes, 128: own_trace(batch=7, width=128).peak_bytes}
    wide = own_trace(batch=1, width=128).peak_bytes

    def simulated(traced, card, request):
        most = room[64] if traced.peak_bytes < wide else room[128]
        return Simulated((), "never" if traced.peak_bytes <= most else "always")

    monkeypatch.setattr(module, "_simulated", simulated)
    monkeypatch.setattr(module, "_on_card", lambda traced, card, request: predicted_card("l4"))
    monkeypatch.setattr(largest_value, "MOST", 12)
    grid, answer = ask("batch=4", "width=[64, 128]", gpus=("l4",), largest="batch")
    assert [
        (one.cell_id, one.gpu, one.argument, one.certain, one.possible)
        for one in answer.largest_values
    ] == [(cell.cell_id, "l4", "batch", n, n) for cell, n in zip(grid.cells, (9, 7), strict=True)]


def test_what_prediction_does_not_cover_is_refused_and_the_others_are_predicted():
    grid, answer = ask("batch=[2, 3, 4]", factory="reading")
    assert [one.cell_id for one in answer.refused] == [grid.cells[1].cell_id]
    assert "nonzero" in answer.refused[0].reason
    assert len(answer.cells) == 2


def test_a_process_that_ends_without_an_answer_is_told():
    with pytest.raises(ProgramError) as raised:
        ask("batch=[2, 3]", factory="dying")
    assert raised.value.got == "exit code 9"


def test_a_defect_in_a_forked_process_is_told(monkeypatch):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(module, "_predicted", broken)
    with pytest.raises(WorkerError) as raised:
        ask("batch=[2, 3]")
    assert "RuntimeError: a defect" in raised.value.got


def test_arguments_are_refused_before_anything_is_traced():
    said = []
    with pytest.raises(ProfileError, match="no such argument"):
        ask("bacth=[2, 3]", said=said)
    assert len(said) == 1


def test_a_forced_kernel_reaches_the_trace(monkeypatch):
    targets = []
    real = module.trace_steps

    def traced(factory, *, target, **options):
        targets.append(target)
        return real(factory, target=target, **options)

    monkeypatch.setattr(module, "trace_steps", traced)
    ask(attention="math", gpus=("t4", "rtx-3060", "rtx-3090"))
    assert [(one.attention, one.compute_capability) for one in targets] == [
        ("math", (7, 5)),
        ("math", (8, 6)),
    ]


def test_expandable_segments_reach_the_simulation():
    gpu, asked = "t4", ("batch=5000", "width=300")
    card = card_of(find_gpu(gpu))
    target = tracer.Target(compute_capability=card.runtime.compute_capability)
    traced = own_trace(batch=5000, width=300, target=target)
    reserved = []
    for expandable in (False, True):
        _, answer = ask(*asked, gpus=(gpu,), expandable_segments=expandable)
        settings = AllocatorSettings(expandable_segments=expandable)
        played = simulate(traced, settings, card.runtime)
        assert answer.cells[0].cards[0].reserved.value_bytes == played.peak_reserved_bytes
        reserved.append(played.peak_reserved_bytes)
    assert reserved[0] != reserved[1]
