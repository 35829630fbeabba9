"""Cards by their names: of the catalogue, or calibrated here."""

import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan.gpus import load_gpus
from ftbench.records.calibration import CardFigures
from ftbench.records.calibration_files import FOLDER, write_calibration
from ftbench.verbs.cards import calibrated_gpu, calibrated_gpus, calibration_note
from tests.calibrated import calibration

SIZE, CONTEXT = 10 * 2**30, 300 * 2**20


@pytest.fixture(autouse=True)
def calibrated(tmp_path, monkeypatch):
    """A folder in which a card was calibrated that the catalogue lacks, and one that it has."""
    monkeypatch.chdir(tmp_path)
    for name in ("NVIDIA RTX 9", "NVIDIA L4"):
        one = calibration("cuda", card=CardFigures(context_bytes=CONTEXT))
        changes = {"name": name, "compute_capability": (9, 0), "total_memory_bytes": SIZE}
        device = one.device.model_copy(update=changes)
        write_calibration(one.model_copy(update={"device": device}), FOLDER)


@pytest.mark.parametrize("text", ["rtx-9", "NVIDIA RTX 9", "l4"])
def test_a_calibrated_card_has_the_memory_that_was_measured(text):
    (card,) = calibrated_gpus([text])
    assert (card.memory_low_bytes, card.memory_bytes) == (SIZE, SIZE)
    assert card.context_measured_bytes == (CONTEXT,)
    assert f"{card.name} (total memory and CUDA context)" in calibration_note([card])


def test_a_card_that_was_not_calibrated_is_the_catalogues():
    (card,) = calibrated_gpus(["t4"])
    assert card == load_gpus()["t4"]
    assert calibration_note([card]) is None


def test_a_name_of_no_card_is_refused():
    with pytest.raises(ProfileError, match="no such GPU"):
        calibrated_gpus(["rtx-90"])


def test_one_card_is_not_several():
    assert calibrated_gpu("rtx-9", "of one card").name == "NVIDIA RTX 9"
    with pytest.raises(ProfileError, match="of one card"):
        calibrated_gpu("all", "of one card")
