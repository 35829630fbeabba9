"""The search for the cheapest configuration that fits, held against a search through all of them."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftbench.plan.gpus import custom_gpu
from ftbench.plan.grid import expand
from ftbench.plan.variants import axes_searched, variants
from ftbench.prediction.fit_search import search
from ftbench.records.fit_search import FitRequest
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    LargestBatch,
    PredictedBytes,
    Predictions,
    Refused,
)
from tests.factories import data_source, model_source, profile

OWN_BATCH, TRAIN_SIZE = 4, 16
OVER = ("method=full,lora", "optim=adamw_torch,sgd")


def planted(cell, weights=600, batch=40, saved=4):
    """What a cell needs: states that LoRA, SGD and shards make smaller, and activations that checkpointing does."""
    states = weights * (4 if cell.settings.get("optim") == "adamw_torch" else 2)
    if cell.method == "lora":
        states = weights + 10
    if cell.strategy == "fsdp2":
        states = states // cell.num_processes + 50
    each = batch // saved if cell.settings.get("gradient_checkpointing") else batch
    return states + each * cell.per_device_train_batch_size


def exactly(nbytes):
    return PredictedBytes(
        value_bytes=nbytes, low_bytes=nbytes, high_bytes=nbytes, certainty="exact"
    )


class Card:
    """In the place of predictions: a card with `room`, of which `unsure` bytes may be taken."""

    def __init__(self, room, unsure=0, refused=lambda cell: False, **sizes):
        self.room, self.unsure, self.refused, self.sizes = room, unsure, refused, sizes
        self.cells = []

    def verdict(self, need, room):
        if need <= room - self.unsure:
            return "fits"
        return "too close to call" if need <= room else "does not fit"

    def __call__(self, request):
        self.cells += request.cells
        (cell,) = request.cells
        if self.refused(cell):
            reason = Refused(cell_id=cell.cell_id, reason="not covered")
            return Predictions(cells=(), refused=(reason,))
        need = planted(cell, **self.sizes)
        cards = []
        for gpu in request.gpus:
            room = 1 << 50 if "without" in gpu.name else self.room
            cards.append(
                CardPrediction(
                    gpu=gpu.name,
                    requested=exactly(need),
                    allocated=exactly(need),
                    reserved=exactly(need),
                    process=exactly(need),
                    capacity_low_bytes=room - self.unsure,
                    capacity_high_bytes=room,
                    verdict=self.verdict(need, room),
                )
            )
        largest = []
        if request.largest_batch:
            ways = {n: planted(cell.with_shape(n, 16), **self.sizes) for n in range(1, 100)}
            fits = [n for n, size in ways.items() if self.verdict(size, self.room) == "fits"]
            may = [n for n, size in ways.items() if size <= self.room]
            largest = [
                LargestBatch(
                    cell_id=cell.cell_id,
                    gpu=request.gpus[0].name,
                    max_length=16,
                    certain=max(fits, default=0),
                    possible=max(may, default=0),
                    reserved=None,
                )
            ]
        found = CellPrediction(
            cell_id=cell.cell_id, source="traced", tensors=exactly(need), cards=tuple(cards)
        )
        return Predictions(cells=(found,), largest=tuple(largest))


def asked(gpus=(1, 2, 4), over=OVER):
    block = {
        "max_length": [16],
        "per_device_train_batch_size": [OWN_BATCH],
        "train_size": [TRAIN_SIZE],
    }
    made = profile(grid=[block], training={"optim": "adamw_torch"})
    grid = expand(made, model_source(), data_source())
    axes = axes_searched(made, grid.cells[0], over, gpus)
    found, _ = variants(made, grid, grid.cells[0], axes)
    return FitRequest(variants=tuple(found), gpu=custom_gpu("24GiB"))


def by_search_through_all(request, card):
    """Return the cell that is cheapest by the documented order of all variants and batches; None if none fits."""
    checked = []
    for variant in request.variants:
        for batch in range(1, TRAIN_SIZE + 1):
            cell = variant.cell.with_shape(batch, 16)
            if not card.refused(cell) and planted(cell, **card.sizes) <= card.room - card.unsure:
                model = (
                    len(variant.departures),
                    cell.method == "lora",
                    cell.settings["optim"] == "sgd",
                )
                checkpointing = bool(cell.settings.get("gradient_checkpointing"))
                time = (checkpointing, cell.strategy == "fsdp2")
                cost = (cell.num_processes, model, batch < OWN_BATCH, time, -batch)
                checked.append((cost, cell))
    return min(checked, key=lambda pair: pair[0])[1] if checked else None


@settings(deadline=None, max_examples=60)
@given(
    st.integers(60, 3200),
    st.integers(0, 300),
    st.integers(50, 900),
    st.integers(4, 300),
    st.sampled_from([2, 4]),
)
@example(2500, 0, 600, 80, 2)  # one example fits with checkpointing and without, four do not
def test_nothing_that_is_cheaper_fits(room, unsure, weights, batch, saved):
    card = Card(room, unsure, weights=weights, batch=batch, saved=saved)
    request = asked()
    answer = search(request, card)
    expected = by_search_through_all(request, card)
    assert (answer.found and answer.found.cell) == expected
    if expected is not None:
        for neighbour in answer.neighbours:
            one = neighbour.judged
            assert one.verdict != "fits"
            assert one.needs.value_bytes == planted(one.cell, **card.sizes)
            assert one.missing_bytes == one.needs.value_bytes - (room - unsure) > 0


def neighbours_of(answer):
    return {
        one.setting: (one.judged.cell.setting(one.setting), one.judged.missing_bytes)
        for one in answer.neighbours
    }


def test_neighbours_differ_in_one_setting_and_are_cheaper():
    # Full fine-tuning needs 2,400 bytes of states, 650 in shards of four, and 10 per example with checkpointing.
    answer = search(asked((1, 2, 4), ()), Card(700))
    assert dict(answer.found.values) == {
        "num_processes": 4,
        "gradient_checkpointing": True,
        "strategy": "fsdp2",
    }
    assert answer.found.cell.per_device_train_batch_size == 5
    assert neighbours_of(answer) == {
        "num_processes": (2, 2400 // 2 + 50 + 50 - 700),
        "gradient_checkpointing": (False, 650 + 200 - 700),
        "strategy": ("ddp", 2400 + 50 - 700),
        "per_device_train_batch_size": (6, 10),
    }


def test_a_model_that_is_trained_otherwise_is_said_and_has_the_profiles_way_beside_it():
    answer = search(asked((1,)), Card(1300))
    assert answer.found.departures == ("optim",)
    assert answer.found.cell.settings["optim"] == "sgd"
    assert neighbours_of(answer)["optim"][0] == "adamw_torch"


def test_the_profiles_batch_is_kept_if_checkpointing_makes_room_for_it():
    answer = search(asked((1,), ()), Card(2400 + 100))  # two examples without, ten with
    assert dict(answer.found.values)["gradient_checkpointing"] is True
    assert answer.found.cell.per_device_train_batch_size == 10
    smaller = search(asked((1,), ()), Card(2400 + 30))
    assert smaller.found.cell.per_device_train_batch_size == 3


def test_no_batch_has_more_examples_than_there_are():
    answer = search(asked((1,), ()), Card(10**6))
    assert answer.found.cell.per_device_train_batch_size == TRAIN_SIZE
    assert answer.neighbours == ()


def test_what_is_too_close_to_call_does_not_fit_and_is_said():
    card = Card(2400 + 160, unsure=20)  # four examples would fill it
    answer = search(asked((1,), ("gradient_checkpointing=false",)), card)
    assert answer.found.cell.per_device_train_batch_size == 3
    assert answer.largest_possible == 4
    (larger,) = answer.neighbours
    assert larger.judged.verdict == "too close to call"
    assert larger.judged.missing_bytes == 20


def test_nothing_dearer_than_the_answer_is_predicted():
    card = Card(10**6)
    answer = search(asked(), card)
    assert answer.tried == 1 < answer.variants
    assert {(cell.num_processes, cell.method) for cell in card.cells} == {(1, "full")}


def test_if_nothing_fits_the_nearest_is_told():
    answer = search(asked((1, 2)), Card(100))
    assert answer.found is None
    assert answer.tried == answer.variants
    (nearest,) = answer.neighbours
    sizes = [planted(one.cell.with_shape(1, 16)) for one in asked((1, 2)).variants]
    assert nearest.judged.missing_bytes == min(sizes) - 100


def test_what_cannot_be_predicted_is_passed_over_and_said():
    card = Card(700, refused=lambda cell: cell.strategy == "fsdp2")
    answer = search(asked((1, 2, 4), ()), card)
    assert answer.found is None
    assert {one.reason for one in answer.refused} == {"not covered"}


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 4)))[:3])
def test_the_answer_does_not_depend_on_the_order_of_the_numbers(order):
    assert search(asked(order), Card(700)) == search(asked((1, 2, 4)), Card(700))
