"""The answer of a search in words: what it costs, what is changed, what is missing beside it."""

import json

import pytest

from ftbench.base.units import GIB
from ftbench.plan.grid import expand
from ftbench.plan.variants import axes_searched, variants
from ftbench.records.fit_search import FitAnswer, Judged, Neighbour
from ftbench.records.prediction import CardPrediction, PredictedBytes, Refused
from ftbench.report.commands.fit_search import (
    configuration_table,
    fit_json,
    fit_notes,
    neighbours_table,
    profile_lines,
)
from tests.factories import data_source, model_source, profile


def nbytes(low, high=None):
    high = low if high is None else high
    return PredictedBytes(value_bytes=high, low_bytes=low, high_bytes=high, certainty="simulated")


@pytest.fixture(scope="module")
def asked():
    block = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [64]}
    made = profile(grid=[block])
    grid = expand(made, model_source(), data_source())
    axes = axes_searched(made, grid.cells[0], ("method=full,lora",), (2,))
    found, _ = variants(made, grid, grid.cells[0], axes)
    return grid, grid.cells[0], found


def judged(variant, batch, needs, verdict, missing=0):
    card = CardPrediction(
        gpu="l4",
        requested=needs,
        allocated=needs,
        reserved=needs,
        process=nbytes(needs.low_bytes + GIB, needs.high_bytes + 2 * GIB),
        capacity_low_bytes=20 * GIB,
        capacity_high_bytes=22 * GIB,
        verdict=verdict,
    )
    return Judged(
        cell=variant.cell.with_shape(batch, 16),
        values=variant.values,
        departures=variant.departures,
        tensors=needs,
        card=card,
        needs=needs,
        missing_bytes=missing,
    )


@pytest.fixture
def answer(asked):
    variant, other = asked[2][-1], asked[2][-2]
    close = judged(other, 12, nbytes(19 * GIB, 21 * GIB), "too close to call", GIB)
    return FitAnswer(
        found=judged(variant, 12, nbytes(18 * GIB), "fits"),
        largest_possible=14,
        neighbours=(Neighbour(setting="strategy", judged=close),),
        tried=7,
        variants=8,
        refused=(Refused(cell_id="a", reason="no\n  such kernel"),) * 2,
        versions=(("torch", "2.13"),),
    )


def test_the_configuration_is_told_beside_the_profiles(asked, answer):
    table = configuration_table(asked[1], answer)
    rows = {row[0]: row[1:] for row in table.rows}
    assert "l4" in table.title
    assert rows["method"] == ("lora", "full", "changes what is learned")
    assert rows["gradient_checkpointing"] == ("true", "false", "")
    assert rows["batch"] == ("12", "4", "")
    assert rows["examples per step, all cards"][:2] == ("24", "4")
    assert rows["reserved"][2] == "room: 20.0 GiB to 22.0 GiB"
    assert rows["process"][0] == "20.0 GiB (19.0 GiB to 20.0 GiB)"
    assert rows["largest batch, perhaps"][0] == "14"


def test_the_lines_of_the_profile_are_those_that_change(asked, answer):
    grid, cell, _ = asked
    assert profile_lines(grid, cell, answer)[1:] == [
        "num_processes = 2",
        'method = "lora"',
        "[parallel]",
        'strategy = "fsdp2"',
        "[training]",
        "gradient_checkpointing = true",
        "[[grid]]",
        "per_device_train_batch_size = [12]",
    ]
    kept = answer.model_copy(update={"found": answer.found.model_copy(update={"cell": cell})})
    assert profile_lines(grid, cell, kept) == ["# It fits as the profile has it."]


def test_a_neighbour_says_what_is_missing_for_it(answer):
    ((what, needs, room, missing, verdict),) = neighbours_table(answer).rows
    assert (what, missing, verdict) == ("strategy ddp", "1.0 GiB", "close")
    assert needs == "21.0 GiB (19.0 GiB to 21.0 GiB)"
    assert room == "20.0 GiB to 22.0 GiB"


def test_if_nothing_fits_the_nearest_is_told_with_all_its_settings(answer):
    nothing = answer.model_copy(update={"found": None})
    table = neighbours_table(nothing)
    assert "Nothing fits" in table.title
    assert "method lora" in table.rows[0][0]
    assert "batch 12" in table.rows[0][0]
    assert next(fit_notes(nothing, 0)).startswith("nothing fits")


def test_what_was_not_tried_is_said(answer):
    notes = list(fit_notes(answer, 3))
    assert "predicted: 7 of 8 configurations, in the order of their cost" in notes
    assert "left out: 3 configurations whose settings cannot go together" in notes
    assert notes.count("not predicted: no such kernel") == 1


def test_json_has_settings_by_name_and_all_figures(asked, answer):
    grid, cell, _ = asked
    data = json.loads(json.dumps(fit_json(grid, cell, answer, "mine", 3)))
    assert data["found"]["settings"] == {
        "num_processes": 2,
        "method": "lora",
        "gradient_checkpointing": True,
        "strategy": "fsdp2",
        "per_device_train_batch_size": 12,
    }
    assert data["found"]["departures"] == ["method"]
    assert data["found"]["largest_possible_batch"] == 14
    (neighbour,) = data["neighbours"]
    assert (neighbour["setting"], neighbour["missing_bytes"]) == ("strategy", GIB)
    assert (data["tried"], data["configurations"], data["contradicting"]) == (7, 8, 3)
    nothing = answer.model_copy(update={"found": None})
    assert fit_json(grid, cell, nothing, "mine", 0)["found"] is None
