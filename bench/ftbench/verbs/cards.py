"""Cards by their names, with what was measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftbench.plan.gpus import Gpu
    from ftbench.records.prediction import Predictions


def gpus_of(names: Sequence[str]) -> list[Gpu]:
    """Return the cards of these names, each once; `all` are those of the catalogue. Raises ProfileError."""
    from ftbench.plan.gpus import find_gpu, load_gpus

    found: dict[str, Gpu] = {}
    for text in names:
        gpus = load_gpus().values() if text == "all" else [find_gpu(text)]
        found.update({gpu.name: gpu for gpu in gpus})
    return list(found.values())


def calibrated_gpus(names: Sequence[str]) -> list[Gpu]:
    """Return the cards of these names, with the memory that `ftbench calibrate` measured on one of their kind.

    Raises ProfileError; DamagedFile for a calibration that cannot be read.
    """
    from ftbench.records.calibration_files import FOLDER, read_calibrations

    found = gpus_of(names)
    calibrations = read_calibrations(FOLDER) if found else ()
    if not calibrations:
        return found
    from ftbench.estimation.calibrated_run import with_measured_memory

    return [with_measured_memory(gpu, calibrations) for gpu in found]


def with_calibration_note(predictions: Predictions, gpus: Sequence[Gpu]) -> Predictions:
    """Return predictions with a note of the cards whose memory was measured by `ftbench calibrate`."""
    from ftbench.plan.gpus import MEASURED_HERE

    names = [gpu.name for gpu in gpus if gpu.context_source == MEASURED_HERE]
    if not names:
        return predictions
    note = f"{', '.join(names)}: total memory and CUDA context are those that `ftbench calibrate` measured"
    return predictions.model_copy(update={"notes": (*predictions.notes, note)})
