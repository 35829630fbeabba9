"""Trackers: the files of `report_to` go into folders of the run directory, so that they outlive checkpoints.

transformers' callbacks read their paths from environment variables. A variable that the user has set stays
as it is; otherwise nothing is sent over a network. Only the cell itself reports: two-step passes, predictions and
the batch search do not.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from ftbench.base.errors import ProfileError

# The packages of each integration, any one of which is enough.
PACKAGES: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}


def reports_to(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the integrations that a cell's settings name; raises ProfileError for an unsupported one.

    Unsupported integrations send data over a network, and `all` would mean every installed one.
    """
    asked = settings.get("report_to", "none")
    names = [asked] if isinstance(asked, str) else list(asked or ())
    for name in names:
        if name not in (*PACKAGES, "none"):
            raise ProfileError(
                "not a supported tracker",
                where="training.report_to",
                got=repr(name),
                expected=f"none, or some of {', '.join(PACKAGES)}",
            )
    return tuple(name for name in names if name != "none")


def require_packages(settings: Mapping[str, Any]) -> None:
    """Raise ProfileError if a cell reports to a tracker that is not installed."""
    for name in reports_to(settings):
        if not any(importlib.util.find_spec(package) for package in PACKAGES[name]):
            raise ProfileError(
                f"this tracker needs the package {PACKAGES[name][0]}, which is not installed",
                where="training.report_to",
                got=name,
                hint=f"python -m pip install {PACKAGES[name][0]}",
            )


def report_into(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make this process's integrations write into a folder that has the name of the run.

    TensorBoard and W&B have one folder per run; MLflow and trackio one database for all runs, beside it.
    """
    names = reports_to(settings)
    for name in names:
        for variable, value in _places(folder)[name].items():
            os.environ.setdefault(variable, value)
    if names:
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def reports_open(trainer: Trainer) -> Iterator[None]:
    """Keep trackers open until the end of the context, and close them there.

    By themselves they close at the end of training, but the recipe evaluates once more: TensorBoard would
    begin another file, and MLflow another run that nobody ends. W&B and the writers' threads finish at the
    interpreter's exit, which a worker does not reach.
    """
    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    callbacks = trainer.callback_handler.callbacks
    trackers = [callback for callback in callbacks if isinstance(callback, kinds)]
    for tracker in trackers:
        tracker.on_train_end = _not_yet
    yield
    for tracker in trackers:
        del tracker.on_train_end
        tracker.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    if "wandb" in (trainer.args.report_to or ()):
        importlib.import_module("wandb").finish()


def _not_yet(*_: Any, **__: Any) -> None:
    """Replace a tracker's `on_train_end`."""


def _places(folder: Path) -> dict[str, dict[str, str]]:
    """Return the environment variables of each integration, for a run with this folder."""
    return {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(folder)},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}"},
        "wandb": {"WANDB_DIR": str(folder), "WANDB_MODE": "offline"},
        "trackio": {"TRACKIO_DIR": str(folder.parent / "trackio")},
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
