"""Calibration's own cells: their profile is loaded for any device that can be measured."""

import pytest

from ftbench.execute import calibration
from ftbench.execute.engines.base import Outcome
from ftbench.plan.devices import Placement
from tests.engines import InstantEngine


class Made(InstantEngine):
    """A worker that has made a model and its texts."""

    def run(self, module, request, **options):
        """Return the folders."""
        return Outcome(
            {"model": "/m", "data": "/d"}, None, 0, timed_out=False, wall_s=1, log_tail=""
        )


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        (Placement(kind="cpu"), "cpu"),
        (Placement(kind="cuda", devices=("GPU-1234",)), "cuda"),
        (
            Placement(kind="cuda", devices=("0",)),
            "cuda",
        ),  # CUDA_VISIBLE_DEVICES=0, as Slurm sets it
    ],
)
def test_the_profile_is_that_of_the_chosen_kind_of_device(device, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "resolve", lambda profile: profile)
    profile, _ = calibration.workload_in(tmp_path, Made(), device, lambda _: None)
    assert profile.run.device == kind
    assert (profile.workload.model, profile.workload.dataset) == ("/m", "/d")
