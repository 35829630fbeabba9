"""Answers from laws that a test knows: bytes by length, and sizes whose state is 16 bytes per parameter."""

import dataclasses

from studies.memory_claim.growth import ClaimData, CpuPeak, Option, Peak, SeriesSetting, Size
from studies.memory_claim.names import MODELS
from tests.factories import predicted_card

LENGTHS = {
    "distilbert": (64, 128, 256, 384, 416, 448, 512),
    "modernbert": (64, 1024, 2048, 4096, 8192),
}
PARAMETERS = 12_000_000
FLOOR = 16 * PARAMETERS
LINEAR = 20_000  # bytes per token
BATCH = 8
OVER = 400  # counters and buffers


def square(model: str, attention: str, padded: bool, checkpointing: bool) -> int:
    """Return the planted bytes a document and token²."""
    shape = MODELS[model]
    layers = shape.local_layers if attention == "sdpa" and not padded else shape.layers
    kept = shape.heads * shape.saved_bytes if attention == "eager" else 4
    return kept * (min(layers, 1) if checkpointing else layers)


def planted_peak(setting: SeriesSetting, length: int) -> Peak:
    """Return model state, or the law where that is more."""
    by_law = square(setting.model, setting.attention, setting.padded, setting.checkpointing)
    law = 12 * PARAMETERS + BATCH * (LINEAR * length + by_law * length**2)
    floor = FLOOR + BATCH * length
    at_floor = law < floor
    return Peak(
        length=length,
        total_bytes=max(law, floor),
        parameters_bytes=4 * PARAMETERS,
        gradients_bytes=4 * PARAMETERS if at_floor else 0,
        optimizer_bytes=8 * PARAMETERS,
        moment="last gradient" if at_floor else "first gradient",
        cards=(predicted_card("t4"), predicted_card("h100", verdict="does not fit")),
    )


def with_over(over: dict[tuple[str, str, bool, bool], int]) -> ClaimData:
    """Return the answers with so many more bytes a document and token² in some settings."""
    answers = planted()
    series = dict(answers.series)
    for how, more in over.items():
        setting = SeriesSetting(*how, BATCH)
        series[setting] = tuple(
            dataclasses.replace(p, total_bytes=p.total_bytes + BATCH * more * p.length**2)
            for p in series[setting]
        )
    return dataclasses.replace(answers, series=series)


def planted_size(name: str, layers: int, width: int) -> Size:
    """Return a size with `layers x width²` parameters and activations of `layers x width x 4,096`."""
    parameters = layers * width**2
    peaks = {(2, 64): _size_peak(parameters, OVER, 0)}
    for batch, length in ((8, 128), (32, 128)):
        peaks[batch, length] = _size_peak(parameters, OVER, 4096 * layers * width)
    return Size(name, layers, width, parameters, peaks)


def _size_peak(parameters: int, over: int, other: int) -> Peak:
    total = 16 * parameters + over + other
    return Peak(64, total, 4 * parameters, 4 * parameters, 8 * parameters + over, "m")


def planted() -> ClaimData:
    """Return answers of which every figure is known."""
    series = {}
    for model, lengths in LENGTHS.items():
        for attention, padded in (("eager", True), ("sdpa", True), ("sdpa", False)):
            for checkpointing in (False, True):
                setting = SeriesSetting(model, attention, padded, checkpointing, BATCH)
                series[setting] = tuple(planted_peak(setting, length) for length in lengths)
    small = SeriesSetting("distilbert", "sdpa", True, False, 4)
    series[small] = tuple(planted_peak(small, length) for length in (64, 128))
    base = planted_size("base", 12, 768)
    one = planted_peak(SeriesSetting("distilbert", "sdpa", True, False, BATCH), 64)
    return ClaimData(
        series=series,
        family=(planted_size("tiny", 2, 128), base, planted_size("large", 24, 1024)),
        depths=(planted_size("3/768", 3, 768), base),
        widths=(planted_size("12/192", 12, 192), base),
        options=(Option("adamw", one, one), Option("sgd", one, one)),
        beside=(CpuPeak(small, 64, "a", 1_000), CpuPeak(small, 128, "b", 2_000)),
        versions=(("torch", "2.13.0"),),
    )
