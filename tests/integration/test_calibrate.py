"""Calibration for real: a worker measures this CPU, and estimates are made from that."""

import json
import re

import pytest

from ftbench.cli.options import forecast_of
from ftbench.execute.calibration import workload_in
from ftbench.execute.engines.local import LocalEngine
from ftbench.plan.devices import Placement
from ftbench.records.calibration_files import read_calibrations
from tests.integration.conftest import ftbench

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a calibration of this CPU."""
    here = tmp_path_factory.mktemp("calibrated")
    done = ftbench("calibrate", "--device", "cpu", "--quick", "--no-cells", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "GB/s" in done.stdout
    return here


def test_every_kind_of_kernel_was_measured(folder):
    (found,) = read_calibrations(folder / "calibration")
    assert found.device.kind == "cpu"
    assert len(found.products) == 30
    assert len({(row.kind, row.update) for row in found.memory}) == 10
    assert {row.backward for row in found.attention} == {False, True}
    assert min(row.seconds for row in (*found.products, *found.memory, *found.attention)) > 0
    assert found.host.passes_s > 0


def test_larger_kernels_take_longer(folder):
    (found,) = read_calibrations(folder / "calibration")
    rows = sorted((row for row in found.memory if row.kind == "copy"), key=lambda row: row.nbytes)
    assert rows[-1].seconds > 10 * rows[0].seconds  # thousands of times the bytes


def test_an_estimate_without_a_card_or_runs_is_of_the_calibrated_cpu(folder):
    done = ftbench("estimate", "smoke", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (device,) = json.loads(done.stdout)["devices"]
    (calibration,) = read_calibrations(folder / "calibration")
    time = device["figures"]["time_s"]
    assert device["device"] == calibration.device.name
    assert time["interval"] == "calibrated"
    assert 0 < time["low"] < time["value"] < time["high"]


def test_a_damaged_calibration_is_named(folder, tmp_path):
    (file,) = (folder / "calibration").glob("*.json")
    (tmp_path / "calibration").mkdir()
    text = re.sub(r'"seconds": [\d.e-]+', '"seconds": 1.0', file.read_text(), count=1)
    (tmp_path / "calibration" / file.name).write_text(text)
    done = ftbench("estimate", "smoke", cwd=tmp_path)
    assert done.returncode != 0
    assert file.name in done.stderr


def test_the_cells_of_the_check_need_no_network_and_have_no_padding(tmp_path):
    device = Placement(kind="cpu")
    engine = LocalEngine("spawn", device.environment)
    profile, grid = workload_in(tmp_path, engine, device, lambda _: None)
    cells = {(cell.per_device_train_batch_size, cell.max_length) for cell in grid.cells}
    assert cells == {(8, 64), (16, 128), (4, 256)}
    one = grid.only({"max_length": 64})
    (predicted,) = forecast_of(one, (), on_cpu=True, work=True).cells
    assert predicted.work.step.flops > 1e10
    assert profile.run.device == "cpu"


@pytest.mark.long
def test_steps_are_met(tmp_path):
    """The cells run; how well they are met depends on what else this machine does, so the bound is wide."""
    done = ftbench("calibrate", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = read_calibrations(tmp_path / "calibration")
    assert len(found.cells) == 3
    ratios = [cell.predicted_step_s / cell.measured_step_s for cell in found.cells]
    assert all(0.4 < ratio < 2.5 for ratio in ratios)
