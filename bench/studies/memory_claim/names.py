"""The names of models and settings on the page, and the bytes counted by hand."""

from __future__ import annotations

import dataclasses

from studies.memory_claim.growth import ClaimData, Peaks, SeriesSetting


@dataclasses.dataclass(frozen=True)
class Shape:
    """The properties of an architecture that decide the quadratic part.

    `saved_bytes` are the bytes per score that eager attention keeps for backward: the softmax's output in
    float32 and, if attention has dropout, its result and a one-byte mask as well.
    """

    name: str
    layers: int
    heads: int
    saved_bytes: int
    local_layers: int = 0


MODELS = {
    "distilbert": Shape("DistilBERT", layers=6, heads=12, saved_bytes=4 + 4 + 1),
    "modernbert": Shape("ModernBERT-base", layers=22, heads=12, saved_bytes=4, local_layers=14),
}
# A float32 mask of attention, which a fused kernel takes and keeps, one per layer.
MASK_BYTES = 4


def variant(setting: SeriesSetting) -> str:
    """Return the name of a series: attention, padding and checkpointing."""
    padding = ", padding" if setting.padded else ", full batches"
    fused = padding if setting.attention == "sdpa" else ""
    return setting.attention + fused + (", checkpointing" if setting.checkpointing else "")


def by_hand(setting: SeriesSetting) -> int:
    """Return the bytes per example and token² that are kept for backward, counted by hand.

    Eager attention keeps its scores for every head. Fused attention keeps its mask: in all layers if batches
    have padding, else in those that attend locally and always need one. With checkpointing, only one layer's
    are live at a time.
    """
    shape = MODELS[setting.model]
    if setting.attention == "eager":
        layers, kept = shape.layers, shape.heads * shape.saved_bytes
    else:
        layers, kept = shape.layers if setting.padded else shape.local_layers, MASK_BYTES
    return kept * (min(layers, 1) if setting.checkpointing else layers)


def share_text(share: float) -> str:
    """Return a share as text, with two digits if it is small."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def settings_of(answers: ClaimData, model: str) -> list[SeriesSetting]:
    """Return the settings of a model's series that go to its longest length, in the page's order."""
    found = [setting for setting in answers.series if setting.model == model]
    return sorted(
        (setting for setting in found if len(answers.series[setting]) > _FEW),
        key=lambda s: (s.checkpointing, s.attention, not s.padded, s.batch),
    )


# A series with at most this many lengths is meant for measurements, and has no law.
_FEW = 4


def peaks_of(
    answers: ClaimData,
    model: str,
    attention: str,
    *,
    padded: bool = True,
    checkpointing: bool = False,
    batch: int = 8,
) -> Peaks:
    """Return the peaks of one setting."""
    return answers.series[SeriesSetting(model, attention, padded, checkpointing, batch)]
