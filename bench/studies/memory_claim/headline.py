"""Headline: the answers in sentences, each written from the figures of the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftbench.base.errors import PredictionError
from ftbench.base.units import format_bytes, format_ratio
from studies.memory_claim.figures import BATCH, SIZE_SHAPES
from studies.memory_claim.growth import (
    BYTES_PER_PARAMETER,
    ClaimData,
    LengthDoubling,
    LengthLaw,
    Size,
    doublings,
    law_at_end,
    power,
)
from studies.memory_claim.names import (
    MODELS,
    by_hand,
    peaks_of,
    settings_of,
    share_text,
    variant,
)


def headline(answers: ClaimData, measured: Mapping[str, int]) -> tuple[str, ...]:
    """Return the findings, in the order of the claim: length, then parameters."""
    found = (
        _short(answers),
        _eager(answers),
        _fused(answers),
        _room(answers),
        _checkpointed(answers),
        _state(answers),
        _sizes(answers),
        _shape(answers),
        _measured(answers, measured),
    )
    return tuple(filter(None, found))


def law_of(answers: ClaimData, model: str, attention: str, **how: bool) -> LengthLaw:
    """Return the law of one setting at the page's batch size."""
    law = law_at_end(peaks_of(answers, model, attention, batch=BATCH, **how))
    if law is None:
        raise PredictionError(
            "the longest lengths do not lie on a parabola, so the page would have no law",
            got=f"{model}, {attention}, {how}",
        )
    return law


def last_doubling(answers: ClaimData, model: str, attention: str, **how: bool) -> LengthDoubling:
    """Return the exponents of the doubling to the longest length, at the page's batch size."""
    return doublings(peaks_of(answers, model, attention, batch=BATCH, **how))[-1]


def _short(answers: ClaimData) -> str:
    parts = []
    for model, shape in MODELS.items():
        eager, fused = (last_doubling(answers, model, name) for name in ("eager", "sdpa"))
        parts.append(
            f"{shape.name}'s peak by {format_ratio(2**eager.total)} (eager) or {format_ratio(2**fused.total)}"
            f" (sdpa) from {eager.start:,} to {eager.end:,} tokens"
        )
    return (
        "In short: memory is quadratic in length only with eager attention over long sequences, and"
        f" {BYTES_PER_PARAMETER} bytes per parameter are needed at any length. A doubling of length, at batch"
        f" {BATCH} in float32 with AdamW and padding, multiplies {', and '.join(parts)}: 2x is"
        " linear, 4x quadratic."
    )


def _eager(answers: ClaimData) -> str:
    parts = []
    for model, shape in MODELS.items():
        end = last_doubling(answers, model, "eager").end
        even = law_of(answers, model, "eager").even or 0
        parts.append(f"at {even:,.0f} tokens in {shape.name}'s shape, which ends at {end:,}")
    return (
        "Eager attention keeps the scores of every head and layer. The quadratic part overtakes the linear one"
        f" {', and '.join(parts)}; the rest of the peak does not depend on length."
    )


def _fused(answers: ClaimData) -> str:
    full = law_of(answers, "distilbert", "sdpa", padded=False)
    squares = [
        f"{_square(answers, model, 'sdpa')} bytes per token² instead of eager's"
        f" {_square(answers, model, 'eager')} ({shape.name})"
        for model, shape in MODELS.items()
    ]
    padded, without = (
        last_doubling(answers, "modernbert", "sdpa", padded=padded).total
        for padded in (True, False)
    )
    local = _square(answers, "modernbert", "sdpa", padded=False)
    return (
        f"Fused attention (sdpa) is {'linear' if full.square == 0 else 'not linear'} in length if no mask is"
        f" needed: in full batches DistilBERT's quadratic part is {_per_document(full)} bytes, exactly. Padding"
        " brings a mask, and every layer keeps it as float32: a small quadratic part,"
        f" {', '.join(squares)}. ModernBERT's local layers need one even in full batches ({local} bytes):"
        " attending to 128 tokens only costs memory here, where it could save it. At its longest the whole grows"
        f" with the power {padded:.2f} with padding and {without:.2f} without."
    )


def _square(answers: ClaimData, model: str, attention: str, **how: bool) -> str:
    return _per_document(law_of(answers, model, attention, **how))


def _per_document(law: LengthLaw) -> str:
    return f"{float(law.square) / BATCH:,.0f}"


def over_by_hand(answers: ClaimData) -> str:
    """Return the bytes per token² of the laws beyond those counted by hand: `BERT 96 (eager)`.

    Models without a difference are left out.
    """
    parts = []
    for model, shape in MODELS.items():
        found = {
            f"{float(over):.4g} ({variant(setting)})": None  # once, whatever the batch
            for setting in settings_of(answers, model)
            if (law := law_at_end(answers.series[setting])) is not None
            and (over := law.square / setting.batch - by_hand(setting))
        }
        if found:
            parts.append(f"{shape.name} {', '.join(found)}")
    return "; ".join(parts)


def room_tokens(answers: ClaimData, model: str, attention: str) -> tuple[int, int]:
    """Return the tokens of the longest batch whose peak is only model state, and of the next one."""
    peaks = peaks_of(answers, model, attention, batch=BATCH)
    short = [peak.length for peak in peaks if peak.moment == peaks[0].moment]
    following = next(peak.length for peak in peaks if peak.length > short[-1])
    return BATCH * short[-1], BATCH * following


def _room(answers: ClaimData) -> str:
    rooms = []
    for model, shape in MODELS.items():
        found = (room_tokens(answers, model, name) for name in ("eager", "sdpa"))
        (eager, fused) = (f"{low:,} to {high:,}" for low, high in found)
        rooms.append(
            f"{eager} in {shape.name}"
            if eager == fused
            else f"{eager} (eager) or {fused} (sdpa) in {shape.name}"
        )
    return (
        "The memory of short steps does not depend on length, since activations use the room that the gradients"
        f" take later. The room is full somewhere from {' and '.join(rooms)}, in tokens of a batch of {BATCH}."
    )


def _checkpointed(answers: ClaimData) -> str:
    parts = []
    for model, shape in MODELS.items():
        for attention in ("eager", "sdpa"):
            without, with_ = (
                peaks_of(answers, model, attention, checkpointing=on)[-1] for on in (False, True)
            )
            parts.append(
                f"{shape.name} {attention} at {with_.length:,} from {format_bytes(without.total_bytes)} to"
                f" {format_bytes(with_.total_bytes)}"
            )
    squares = [_square(answers, "modernbert", "eager", checkpointing=on) for on in (False, True)]
    return (
        f"Checkpointing changes the amount, not the kind of growth: {'; '.join(parts)}. The quadratic part is"
        f" then one layer's, with temporaries of its backward pass (ModernBERT, eager: {squares[1]} bytes per"
        f" token² instead of {squares[0]}), but so is the linear one."
    )


def _state(answers: ClaimData) -> str:
    base = next(size for size in answers.family if size.name == "base")
    over = base.floor.state_bytes - BYTES_PER_PARAMETER * base.parameters
    shares = [
        f"{shape.name} {', '.join(_share(answers, model, attention) for attention in ('eager', 'sdpa'))}"
        for model, shape in MODELS.items()
    ]
    first = peaks_of(answers, "distilbert", "eager")[0]
    return (
        f"Parameters, gradients and AdamW's state are {BYTES_PER_PARAMETER} bytes per parameter in float32"
        f" (BERT-base: {BYTES_PER_PARAMETER} x {base.parameters:,} and {over:,} bytes of step counters and"
        f" buffers). They are {first.state_share:.0%} of the peak at length {first.length}; at the longest"
        f" {'; '.join(shares)}."
    )


def _share(answers: ClaimData, model: str, attention: str) -> str:
    last = peaks_of(answers, model, attention)[-1]
    return f"{share_text(last.state_share)} ({attention})"


def _sizes(answers: ClaimData) -> str:
    first, last = answers.family[0], answers.family[-1]
    powers = " and ".join(
        f"{_power(answers.family, shape):.2f} ({math.prod(shape):,} tokens per step)"
        for shape in SIZE_SHAPES
    )
    floor = power([(size.parameters, size.floor.total_bytes) for size in answers.family])
    shape = SIZE_SHAPES[-1]
    return (
        "Parameters: model state is exactly linear in them; the total only seems linear if depth and width grow"
        f" together. Over {len(answers.family)} sizes of BERT from {first.parameters / 1e6:.1f} M to"
        f" {last.parameters / 1e6:.0f} M it grows with the power {powers}, and {floor:.2f} in a step so small that"
        f" nearly all memory is state; but with {_power(answers.depths, shape):.2f} by depth only and"
        f" {_power(answers.widths, shape):.2f} by width only ({math.prod(shape):,} tokens)."
    )


def _power(sizes: Sequence[Size], shape: tuple[int, int]) -> float:
    return power([(size.parameters, size.peaks[shape].total_bytes) for size in sizes])


def _shape(answers: ClaimData) -> str:
    shape = SIZE_SHAPES[-1]

    def others(sizes: Sequence[Size], side: str) -> float:
        return power([(getattr(size, side), size.peaks[shape].other_bytes) for size in sizes])

    def encoder(sizes: Sequence[Size], side: str) -> float:
        return power([(getattr(size, side), size.parameters) for size in sizes])

    return (
        f"Activations follow layers x width, not parameters: with depth ({_range(answers.depths, 'layers')} layers)"
        f" they grow with the power {others(answers.depths, 'layers'):.2f}, with width"
        f" ({_range(answers.widths, 'width')}) with {others(answers.widths, 'width'):.2f}, where parameters grow"
        f" with {encoder(answers.depths, 'layers'):.2f} and {encoder(answers.widths, 'width'):.2f}. The two do not"
        " add up either: at the peak of activations, the gradients do not exist yet."
    )


def _range(sizes: Sequence[Size], side: str) -> str:
    return f"{getattr(sizes[0], side)} to {getattr(sizes[-1], side)}"


def _measured(answers: ClaimData, measured: Mapping[str, int]) -> str:
    pairs = [
        (cell.predicted_bytes, measured[cell.cell_id])
        for cell in answers.beside
        if cell.cell_id in measured
    ]
    if not pairs:
        return ""
    off = max(abs(predicted - seen) / seen for predicted, seen in pairs)
    most = max(abs(predicted - seen) for predicted, seen in pairs)
    return (
        f"Measured on this machine: in {len(pairs)} cells of DistilBERT's shape on the CPU the real"
        f" allocator's peak and the prediction for the CPU differ by at most {most:,} bytes ({off:.2%})."
    )
