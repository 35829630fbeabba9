"""The gate and estimates from Python, with planted answers of the worker."""

import numpy as np
import pytest

import ftbench
from ftbench.base.errors import BaselineError, FtbenchError, ProfileError
from ftbench.execute import prediction_worker
from ftbench.gating.baseline_file import write_baseline
from ftbench.verbs import gate as gate_verb
from ftbench.verbs.predict import subject_for
from tests.factories import profile_data
from tests.unit.test_cli_gate import Forecast


@pytest.fixture
def planted(monkeypatch):
    made = Forecast()

    monkeypatch.setenv("FTBENCH_CACHE", "off")
    monkeypatch.setattr(prediction_worker, "forecast", made)
    return made


@pytest.fixture
def accepted(planted, tmp_path):
    """A baseline of what is planted."""
    subject = subject_for("smoke", (), None, None, None, None, cache=False)
    found, refused = subject.baseline([], None)
    assert not refused
    file = tmp_path / "smoke.json"
    write_baseline(found, file)
    return file


def test_what_did_not_move_is_ok(accepted):
    verdict = ftbench.gate("smoke", baseline=accepted)
    assert verdict.ok
    assert verdict.to_pandas().empty
    verdict.raise_if_failed()
    assert "holds" in verdict._repr_html_()


def test_a_byte_more_fails_and_names_its_part(accepted, planted):
    planted.more_bytes = 512
    verdict = ftbench.gate("smoke", baseline=accepted)
    assert not verdict.ok
    assert len(verdict.to_pandas()) >= 1
    with pytest.raises(BaselineError, match="512"):
        verdict.raise_if_failed()
    assert "<table" in verdict._repr_html_()


def test_the_command_that_accepts_is_named_with_its_values(accepted, planted):
    planted.more_bytes = 512
    settings = {"training.bf16": True, "training.learning_rate": 1e-5}
    verdict = ftbench.gate("smoke", baseline=accepted, settings=settings, only={"max_length": 16})
    update = (
        "ftbench baseline update smoke --set training.bf16=true --set training.learning_rate=1e-05"
    )
    assert f"`{update} --baseline {accepted}`" in str(verdict)
    mapping = profile_data()
    assert not _accept(mapping)
    assert _accept("a.py:f", {"b": 1})[-2:] == ("--arg", "b=1")


def _accept(subject, arguments=None):
    return gate_verb._accepting(subject, None, arguments, None, baseline=None, runs=None)


def test_a_tolerance_is_in_bytes(accepted, planted):
    planted.more_bytes = 512
    assert ftbench.gate("smoke", baseline=accepted, tolerance_bytes=512).ok


def test_a_part_of_the_cells_is_compared_alone(accepted):
    verdict = ftbench.gate("smoke", baseline=accepted, only={"max_length": 16})
    assert verdict.ok
    assert len(verdict.result.judged) == 2


def test_without_a_baseline_there_is_nothing_to_compare(planted, tmp_path):
    with pytest.raises(BaselineError):
        ftbench.gate("smoke", baseline=tmp_path / "none.json")
    with pytest.raises(BaselineError, match="require"):
        ftbench.gate("smoke", baseline=tmp_path / "none.json", require_time=True)


def test_benchmarks_refuse_what_belongs_to_profiles(tmp_path):
    with pytest.raises(BaselineError, match="settings"):
        ftbench.gate("new.json", base=tmp_path / "old.json", settings={"training.bf16": True})


def test_an_estimate_has_a_row_per_device_and_figure(planted, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = ftbench.estimate("smoke", gpu=["l4", "t4"], usd_per_hour=[0.8, 0.4], batch=2)
    table = found.to_pandas()
    assert set(table["device"]) == {"l4", "t4"}
    assert {"time_s", "reserved_bytes", "cost_usd", "score"} <= set(table["figure"])
    assert found.estimate.target.cell.per_device_train_batch_size == 2
    assert found._repr_html_().count("<table") == 3  # the ranking, and one per device
    assert found.best is None  # what is planted has no time
    (request,) = planted.requests
    assert (request.work, request.largest_batch, request.hypothetical) == (True, True, True)


def test_a_price_is_of_all_devices_or_of_a_card(planted, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def prices(**given):
        found = ftbench.estimate("smoke", gpu=["l4", "t4"], **given).estimate
        return {one.device: one.price.usd_per_hour for one in found.devices}

    assert prices(usd_per_hour=0.5) == {"l4": 0.5, "t4": 0.5}
    assert prices(usd_per_hour="l4=0.25")["l4"] == 0.25
    assert prices(usd_per_hour=np.float32(0.5)) == {"l4": 0.5, "t4": 0.5}
    assert prices(usd_per_hour={"l4": 0.7, "t4": 0.3}) == {"l4": 0.7, "t4": 0.3}


@pytest.mark.parametrize(
    "given", [{"batch": 0}, {"train_size": -1}, {"max_length": 1.5}, {"attention": "flashh"}]
)
def test_what_cannot_be_is_named(planted, monkeypatch, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError, match=next(iter(given))):
        ftbench.estimate("smoke", gpu="l4", **given)


def test_numbers_may_be_numpy_s(planted, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = ftbench.estimate("smoke", gpu="l4", train_size=np.int64(64))
    assert found.estimate.target.cell.train_size == 64


def test_a_subject_s_baseline_is_looked_for_by_its_name(planted, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = {**profile_data(), "name": "mine"}
    for subject, name in ((data, "mine"), (tmp_path / "sub" / "new.json", "new")):
        with pytest.raises(FtbenchError) as raised:
            ftbench.gate(subject)
        assert name in str(raised.value)
