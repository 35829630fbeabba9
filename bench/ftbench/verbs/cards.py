"""Cards by their names, with what was measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftbench.plan.gpus import Gpu
    from ftbench.records.calibration import Calibration
    from ftbench.records.prediction import Predictions


def gpus_of(names: Sequence[str], calibrations: Sequence[Calibration] = ()) -> list[Gpu]:
    """Return the cards of these names, each once; `all` are those of the catalogue. Raises ProfileError.

    A card that the catalogue lacks is found by the name under which it was calibrated.
    """
    from ftbench.plan.gpus import load_gpus

    found: dict[str, Gpu] = {}
    for text in names:
        gpus = load_gpus().values() if text == "all" else [_card(text, calibrations)]
        found.update({gpu.name: gpu for gpu in gpus})
    return list(found.values())


def _card(text: str, calibrations: Sequence[Calibration]) -> Gpu:
    from ftbench.base.errors import ProfileError
    from ftbench.plan.gpus import find_gpu

    try:
        return find_gpu(text)
    except ProfileError:
        if not calibrations:
            raise
        from ftbench.estimation.calibrated_run import card_named

        card = card_named(text, calibrations)
        if card is None:
            raise
        return card


def calibrated_gpus(names: Sequence[str]) -> list[Gpu]:
    """Return the cards of these names, with the memory that `ftbench calibrate` measured on one of their kind.

    Raises ProfileError; DamagedFile for a calibration that cannot be read.
    """
    from ftbench.records.calibration_files import FOLDER, read_calibrations

    calibrations = read_calibrations(FOLDER) if names else ()
    found = gpus_of(names, calibrations)
    if not calibrations:
        return found
    from ftbench.estimation.calibrated_run import with_measured_memory

    return [with_measured_memory(gpu, calibrations) for gpu in found]


def calibrated_gpu(name: str, why: str) -> Gpu:
    """Return the one card of a name, as `calibrated_gpus`; raises ProfileError, with `why`, if it names several."""
    from ftbench.base.errors import ProfileError

    found = calibrated_gpus([name])
    if len(found) > 1:
        raise ProfileError(why, where="--gpu", got=name)
    return found[0]


def with_calibration_note(predictions: Predictions, gpus: Sequence[Gpu]) -> Predictions:
    """Return predictions with a note of the cards whose memory was measured by `ftbench calibrate`."""
    note = calibration_note(gpus)
    if note is None:
        return predictions
    return predictions.model_copy(update={"notes": (*predictions.notes, note)})


def calibration_note(gpus: Sequence[Gpu]) -> str | None:
    """Return which cards' memory was measured by `ftbench calibrate`, and of what; None if no card's was."""
    from ftbench.plan.gpus import MEASURED_HERE

    found = []
    for gpu in gpus:
        of = [
            *(["total memory"] if gpu.memory_source == MEASURED_HERE else []),
            *(["CUDA context"] if gpu.context_source == MEASURED_HERE else []),
        ]
        if of:
            found.append(f"{gpu.name} ({' and '.join(of)})")
    return f"measured by `ftbench calibrate`: {', '.join(found)}" if found else None
