"""Reporting: what `report_to` writes, in folders of the run directory, so that it outlives checkpoints.

transformers' callbacks take their places from environment variables. One that the user has set
stays as it is; without it nothing is sent anywhere. Only the cell itself reports: its two-step pass,
predictions and the frontier turn it off.
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

# The packages of each integration, any one of which will do.
PACKAGES: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}


def reports_to(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the integrations that a cell's settings name; raises ProfileError for another one.

    The others send what they are given over a network, and `all` is whatever is installed.
    """
    asked = settings.get("report_to", "none")
    names = [asked] if isinstance(asked, str) else list(asked or ())
    for name in names:
        if name not in (*PACKAGES, "none"):
            raise ProfileError(
                "nothing is reported there",
                where="training.report_to",
                got=repr(name),
                expected=f"none, or some of {', '.join(PACKAGES)}",
            )
    return tuple(name for name in names if name != "none")


def require_packages(settings: Mapping[str, Any]) -> None:
    """Raise ProfileError where a cell reports to something that is not installed."""
    for name in reports_to(settings):
        if not any(importlib.util.find_spec(package) for package in PACKAGES[name]):
            raise ProfileError(
                f"reporting to it needs the package {PACKAGES[name][0]}, which is not installed",
                where="training.report_to",
                got=name,
                hint=f"python -m pip install {PACKAGES[name][0]}",
            )


def report_into(folder: Path, settings: Mapping[str, Any]) -> None:
    """Have this process's integrations write into a folder that has the name of the run.

    TensorBoard and W&B have a folder a run; MLflow and trackio one database for them all, beside it.
    """
    names = reports_to(settings)
    for name in names:
        for variable, value in _places(folder)[name].items():
            os.environ.setdefault(variable, value)
    if names:
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def reports_open(trainer: Trainer) -> Iterator[None]:
    """Keep reports open while the context lasts, and close them at its end.

    They end with training, but the recipe evaluates once more: TensorBoard would begin another file
    and MLflow another run, which nobody ends. W&B and the writers' threads rely on the interpreter's
    own end, which a worker does not come to.
    """
    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    reporters = [one for one in trainer.callback_handler.callbacks if isinstance(one, kinds)]
    for one in reporters:
        one.on_train_end = _not_yet
    yield
    for one in reporters:
        del one.on_train_end
        one.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    if "wandb" in (trainer.args.report_to or ()):
        importlib.import_module("wandb").finish()


def _not_yet(*_: Any, **__: Any) -> None:
    """Stand in the place of a callback's end of training."""


def _places(folder: Path) -> dict[str, dict[str, str]]:
    """Return the environment variables of each integration, for a run whose folder this is."""
    return {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(folder)},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}"},
        "wandb": {"WANDB_DIR": str(folder), "WANDB_MODE": "offline"},
        "trackio": {"TRACKIO_DIR": str(folder.parent / "trackio")},
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
