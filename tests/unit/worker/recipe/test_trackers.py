import importlib.metadata
import os
from pathlib import Path

import pytest

from ftbench.base.errors import ProfileError
from ftbench.worker.recipe.trackers import (
    PACKAGES,
    report_into,
    reports_to,
    require_packages,
    versions,
)

VARIABLES = ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "WANDB_DIR", "WANDB_MODE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment without places, and without those that a test sets."""
    for name in (*VARIABLES, "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever becomes of it
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ()),
        ({"report_to": "none"}, ()),
        ({"report_to": ["none"]}, ()),
        ({"report_to": "tensorboard"}, ("tensorboard",)),
        ({"report_to": ["mlflow", "wandb"]}, ("mlflow", "wandb")),
    ],
)
def test_where_a_cell_reports_to(settings, found):
    assert reports_to(settings) == found


@pytest.mark.parametrize("name", ["all", "comet_ml", "tensorbord"])
def test_other_places_are_refused(name):
    with pytest.raises(ProfileError, match="not a supported tracker") as caught:
        require_packages({"report_to": [name]})
    assert caught.value.where == "training.report_to"
    assert "tensorboard" in caught.value.expected


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_there_is_named(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    require_packages({"report_to": "none"})
    with pytest.raises(ProfileError, match=f"package {name}") as caught:
        require_packages({"report_to": [name]})
    assert caught.value.hint == f"python -m pip install {name}"


def test_tensorboard_may_be_either_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: package == "tensorboardX")
    require_packages({"report_to": ["tensorboard"]})


def test_reports_go_into_the_run_directory_and_nowhere_else(tmp_path):
    folder = tmp_path / "logs" / "abc-r0"
    report_into(folder, {"report_to": list(PACKAGES)})
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == os.environ["WANDB_DIR"] == str(folder)
    assert os.environ["WANDB_MODE"] == "offline"
    assert folder.is_dir()  # W&B writes elsewhere where there is none
    beside = (os.environ["TRACKIO_DIR"], os.environ["MLFLOW_TRACKING_URI"])
    assert beside == (
        str(tmp_path / "logs" / "trackio"),
        f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}",
    )


def test_what_the_user_has_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    report_into(tmp_path / "abc-r0", {"report_to": ["mlflow", "wandb"]})
    assert os.environ["WANDB_MODE"] == "online"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://localhost:5000"


def test_a_cell_that_reports_nowhere_changes_nothing(tmp_path):
    before = dict(os.environ)
    report_into(tmp_path / "abc-r0", {"report_to": "none"})
    assert dict(os.environ) == before
    assert list(Path(tmp_path).iterdir()) == []


def test_versions_are_of_what_is_installed():
    assert versions(("peft", "no-such-package")) == {"peft": importlib.metadata.version("peft")}
