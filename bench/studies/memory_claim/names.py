"""Names: what models and settings are called on the page, and what is known of them by hand."""

from __future__ import annotations

import dataclasses

from studies.memory_claim.growth import ClaimData, Peaks, Setting


@dataclasses.dataclass(frozen=True)
class Shape:
    """What of an architecture decides the part in length².

    `saved_bytes` are what eager attention keeps for backward of one score: the softmax's output in
    float32, and where attention has dropout its result and a one-byte mask as well.
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
# A mask of attention in float32: what a fused kernel is given and keeps, once a layer.
MASK_BYTES = 4


def variant(setting: Setting) -> str:
    """Return what a series is called: attention, padding and checkpointing."""
    padding = ", padding" if setting.padded else ", full batches"
    fused = padding if setting.attention == "sdpa" else ""
    return setting.attention + fused + (", checkpointing" if setting.checkpointing else "")


def by_hand(setting: Setting) -> int:
    """Return the bytes a document and token² that are kept for backward, counted by hand.

    Eager attention keeps its scores, a head; fused attention the mask that it is given, a layer: all
    layers where batches have padding, else those that attend locally and have to have one. With
    checkpointing one layer's are there at a time.
    """
    shape = MODELS[setting.model]
    if setting.attention == "eager":
        layers, kept = shape.layers, shape.heads * shape.saved_bytes
    else:
        layers, kept = shape.layers if setting.padded else shape.local_layers, MASK_BYTES
    return kept * (min(layers, 1) if setting.checkpointing else layers)


def share_text(share: float) -> str:
    """Return a share as text, of two digits where it is small."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def settings_of(answers: ClaimData, model: str) -> list[Setting]:
    """Return the settings of a model's series that go to its longest length, in the page's order."""
    found = [setting for setting in answers.series if setting.model == model]
    return sorted(
        (setting for setting in found if len(answers.series[setting]) > _FEW),
        key=lambda s: (s.checkpointing, s.attention, not s.padded, s.batch),
    )


# A series of no more lengths is there to be measured, not to have a law.
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
    return answers.series[Setting(model, attention, padded, checkpointing, batch)]
