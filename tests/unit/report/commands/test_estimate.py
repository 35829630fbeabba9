"""An estimate as texts: every figure with its unit, or the reason why it is absent."""

import json

import pytest

from ftbench.analysis.fits.reasons import TooFewSizes
from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate, Estimate, MeasuredRuns, target_of
from ftbench.estimation.prices import Price
from ftbench.estimation.reasons import (
    FromPrediction,
    HourlyPrice,
    MayNotFit,
    NoRunFinished,
    OneDevice,
)
from ftbench.plan.schedule import schedule_of
from ftbench.records.prediction import LargestBatch
from ftbench.report.commands.estimate import (
    device_table,
    estimate_json,
    figure_text,
    headline,
    nothing_to_estimate_on,
)
from tests.factories import data_source, model_source, profile

TARGET = target_of(
    profile(training={"num_train_epochs": 2}),
    model_source(),
    data_source(),
    {"train_size": 25_000, "max_length": 512},
)
TIME = EstimatedFigure("time_s", 7200.0, 3600.0, 86400.0, "bounds", OneDevice())
ACCURACY = EstimatedFigure("accuracy", absent=TooFewSizes(2, 4))
FEW = "the training set has 2 sizes; 4 sizes are needed"
LARGEST = LargestBatch(
    cell_id="x", gpu="l4", max_length=512, certain=1024, possible=1030, reserved=None
)


def device(**changes):
    fields = {
        "device": "l4",
        "price": Price(0.8),
        "figures": (TIME, EstimatedFigure("cost_usd", 1.6, 0.8, 19.2, "bounds", HourlyPrice(0.8))),
        "verdict": "fits",
        "largest": LARGEST,
        "notes": (MayNotFit(certain=True),),
    }
    return DeviceEstimate(**(fields | changes))


FOUND = Estimate(
    TARGET, schedule_of(TARGET.cell), 3.2e15, (device(),), ACCURACY, (FromPrediction("noted"),)
)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("time_s", 7200, "2 h 00 min"),
        ("device_hours", 2.0, "2.00 h"),
        ("device_hours", 0.00123, "0.0012 h"),
        ("cost_usd", 1234.5, "$1,234.50"),
        ("cost_usd", 0.00123, "$0.0012"),
        ("reserved_bytes", 2**30, "1.0 GiB"),
        ("energy_j", 3.6e6, "1,000 Wh"),
        ("energy_j", 5400, "1.5 Wh"),
        ("accuracy", 0.91234, "0.912"),
        ("time_s", None, "–"),  # noqa: RUF001
    ],
)
def test_figures_have_their_unit(name, value, text):
    assert figure_text(name, value) == text


def test_the_headline_says_what_is_run_and_what_was_taken_from_the_profile():
    first, second = headline(FOUND)
    assert first == (
        "test, not run: length 512, batch 8, training examples 25,000"
        " (6,250 steps, 3 evaluations of 8 examples, 3.2 PFLOP)"
    )
    assert second == "from the profile, its largest or only: batch 8"


def test_every_figure_has_a_row():
    table = device_table(device(), ACCURACY)
    assert table.title == "On l4, 0.8 USD per hour"
    assert table.rows[0] == (
        "time",
        "2 h 00 min",
        "1 h 00 min",
        "24 h 00 min",
        "bounds",
        "time on one device",
    )
    assert table.rows[1][:4] == ("money", "$1.60", "$0.80", "$19.20")
    assert table.rows[2][0] == "accuracy"
    assert table.rows[2][-1] == f"absent: {FEW}"
    assert table.rows[3][:2] == ("fits", "fits")
    assert table.rows[4][:4] == ("largest batch", "1,024", "1,024", "1,030")


def test_a_machine_has_no_verdict():
    table = device_table(device(verdict=None, largest=None, price=None), ACCURACY)
    assert [row[0] for row in table.rows] == ["time", "money", "accuracy"]
    assert table.title == "On l4"


def test_json_is_plain_and_whole():
    data = json.loads(json.dumps(estimate_json(FOUND)))
    assert data["cell"]["train_size"] == 25_000
    assert data["assumed"] == {"per_device_train_batch_size": 8}
    assert (data["job"]["steps"], data["job"]["flops"]) == (6250, 3.2e15)
    (card,) = data["devices"]
    assert card["figures"]["time_s"] == {
        "value": 7200.0,
        "low": 3600.0,
        "high": 86400.0,
        "interval": "bounds",
        "source": "time on one device",
    }
    assert card["largest_batch"] == {"certain": 1024, "possible": 1030}
    assert data["score"] == {"value": None, "absent": FEW}
    assert data["notes"] == ["noted"]
    assert len(card["notes"]) == 1


def test_without_a_card_or_runs_the_notes_are_the_hint():
    assert nothing_to_estimate_on(MeasuredRuns()).hint is None
    error = nothing_to_estimate_on(MeasuredRuns(notes=(NoRunFinished("runs"),)))
    assert error.hint == "no run in runs has finished"
