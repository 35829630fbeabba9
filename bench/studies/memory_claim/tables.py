"""Tables: one per question, with the figures that the page's sentences use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from ftbench.base.units import format_bytes
from ftbench.records.prediction import CardPrediction
from ftbench.report.elements.table import ABSENT, Table
from studies.memory_claim.growth import (
    ClaimData,
    LengthDoubling,
    Peak,
    SeriesSetting,
    Size,
    doublings,
    law_at_end,
    local_exponent,
)
from studies.memory_claim.names import MODELS, by_hand, settings_of, share_text, variant

_VERDICTS = {"fits": "", "does not fit": " (does not fit)", "too close to call": " (close)"}


def exponents_table(answers: ClaimData, model: str) -> Table:
    """Return the local exponents of a model's series: of the whole peak, and without model state."""
    settings = settings_of(answers, model)
    rows = {setting: doublings(answers.series[setting]) for setting in settings}
    steps = sorted({(double.start, double.end) for found in rows.values() for double in found})
    return Table(
        title=f"{MODELS[model].name}: the power by which the peak grows with a doubling of length"
        " (without model state)",
        columns=("attention", "batch", *(f"{start:,} to {end:,}" for start, end in steps)),
        rows=tuple(
            (variant(setting), str(setting.batch), *_exponents(found, steps))
            for setting, found in rows.items()
        ),
        numeric=(False, *[True] * (1 + len(steps))),
    )


def _exponents(found: Sequence[LengthDoubling], steps: Sequence[tuple[int, int]]) -> list[str]:
    by_step = {(doubling.start, doubling.end): doubling for doubling in found}
    texts = []
    for step in steps:
        doubling = by_step.get(step)
        known = doubling is not None and doubling.other is not None
        other = f" ({doubling.other:.2f})" if doubling is not None and known else ""
        texts.append(ABSENT if doubling is None else f"{doubling.total:.2f}{other}")
    return texts


def laws_table(answers: ClaimData) -> Table:
    """Return the law of each series, per example of a batch, beside the bytes counted by hand."""
    rows = []
    for model in MODELS:
        for setting in settings_of(answers, model):
            peaks = answers.series[setting]
            law = law_at_end(peaks)
            head = (MODELS[model].name, variant(setting), str(setting.batch))
            if law is None:
                rows.append((*head, *[ABSENT] * 6))
                continue
            rows.append(
                (
                    *head,
                    f"{law.start:,} to {law.end:,} ({law.checked + 3})",
                    format_bytes(round(law.constant)),
                    f"{_number(law.linear / setting.batch)}",
                    f"{_number(law.square / setting.batch)}",
                    f"{by_hand(setting):,}",
                    ABSENT if law.even is None else f"{law.even:,.0f}",
                )
            )
    return Table(
        title="Peak = constant + batch x (linear x length + square x length²), to the byte",
        columns=(
            "model",
            "attention",
            "batch",
            "lengths (points)",
            "constant",
            "linear: bytes per token",
            "square: bytes per token²",
            "of that kept, by hand",
            "length at which the two parts are equal",
        ),
        rows=tuple(rows),
        numeric=(False, False, *[True] * 7),
    )


def _number(value: Fraction) -> str:
    return f"{value.numerator:,}" if value.denominator == 1 else f"{float(value):,.2f}"


def shares_table(answers: ClaimData, model: str, settings: Sequence[SeriesSetting]) -> Table:
    """Return peaks and the share of model state by length."""
    columns = {variant(setting): answers.series[setting] for setting in settings}
    by_length = {name: {peak.length: peak for peak in peaks} for name, peaks in columns.items()}
    lengths = sorted(set.intersection(*(set(found) for found in by_length.values())))
    return Table(
        title=f"{MODELS[model].name} at batch {settings[0].batch}: the peak, and the share of model state",
        columns=("length", *columns),
        rows=tuple(
            (f"{length:,}", *(_with_share(found[length]) for found in by_length.values()))
            for length in lengths
        ),
        numeric=(True,) * (1 + len(columns)),
    )


def _with_share(peak: Peak) -> str:
    return f"{format_bytes(peak.total_bytes)} ({share_text(peak.state_share)})"


# The number of lengths of a series in the table of cards.
_LONGEST = 3


def _doubled(length: int) -> bool:
    return length.bit_count() == 1


def cards_table(answers: ClaimData, model: str, batch: int) -> Table:
    """Return the memory of the longest cells on the cards: requested, allocated and reserved."""
    settings = [
        setting
        for setting in settings_of(answers, model)
        if setting.batch == batch and setting.padded
    ]
    names = [card.gpu for card in answers.series[settings[0]][0].cards]
    rows = []
    for setting in settings:
        for peak in [p for p in answers.series[setting] if _doubled(p.length)][-_LONGEST:]:
            cards = (_card(card) for card in peak.cards)
            rows.append(
                (variant(setting), f"{peak.length:,}", format_bytes(peak.total_bytes), *cards)
            )
    return Table(
        title=f"{MODELS[model].name} at batch {batch} on cards: requested / allocated / reserved",
        columns=("attention", "length", "tensors", *names),
        rows=tuple(rows),
        numeric=(False, *[True] * (2 + len(names))),
    )


def _card(card: CardPrediction) -> str:
    if card.verdict == "does not fit":
        return "does not fit"
    figures = (card.requested, card.allocated, card.reserved)
    return " / ".join(format_bytes(f.value_bytes) for f in figures) + _VERDICTS[card.verdict]


def sizes_table(title: str, sizes: Sequence[Size]) -> Table:
    """Return how peaks grow over sizes of a model, with the powers from one size to the next."""
    shapes = sorted(sizes[0].peaks, key=lambda shape: (shape[0] * shape[1], shape[1]))[1:]
    heads = [
        word
        for batch, length in shapes
        for word in (f"{batch} x {length}: peak", "share of state", "the rest", "power")
    ]
    rows = []
    for place, size in enumerate(sizes):
        before = sizes[place - 1] if place else None
        floor = size.floor
        rows.append(
            (
                size.name,
                str(size.layers),
                str(size.width),
                f"{size.parameters:,}",
                f"{floor.state_bytes / size.parameters:.4f}",
                *(text for shape in shapes for text in _grown(size, before, shape)),
            )
        )
    return Table(
        title=title,
        columns=("model", "layers", "width", "parameters", "state bytes per parameter", *heads),
        rows=tuple(rows),
        numeric=(False, *[True] * (4 + len(heads))),
    )


def _grown(size: Size, before: Size | None, shape: tuple[int, int]) -> tuple[str, ...]:
    peak = size.peaks[shape]
    power = ABSENT
    if before is not None:
        ratio = size.parameters / before.parameters
        power = f"{local_exponent(before.peaks[shape].total_bytes, peak.total_bytes, ratio):.2f}"
    return (
        format_bytes(peak.total_bytes),
        f"{peak.state_share:.0%}",
        format_bytes(peak.other_bytes),
        power,
    )


def options_table(answers: ClaimData) -> Table:
    """Return the peaks with other precisions and optimizers."""
    parameters = answers.options[0].floor.gradients_bytes / 4
    small, large = answers.options[0].floor.length, answers.options[0].peak.length
    rows = tuple(
        (
            option.name,
            f"{option.floor.state_bytes / parameters:.2f}",
            format_bytes(option.floor.total_bytes),
            format_bytes(option.peak.total_bytes),
            format_bytes(option.peak.other_bytes),
        )
        for option in answers.options
    )
    return Table(
        title="DistilBERT at batch 8, sdpa: other optimizers, and half precision",
        columns=(
            "training",
            "state bytes per parameter",
            f"peak at length {small}",
            f"peak at length {large}",
            "without state",
        ),
        rows=rows,
        numeric=(False, *[True] * 4),
    )


def beside_table(answers: ClaimData, measured: Mapping[str, int]) -> Table:
    """Return predicted peaks of tensors on a CPU beside the measured ones."""
    rows = []
    for cell in answers.beside:
        seen = measured.get(cell.cell_id)
        off = None if seen is None else cell.predicted_bytes - seen
        texts = (
            (ABSENT, ABSENT)
            if seen is None or off is None
            else (f"{seen:,}", f"{off:+,} ({off / seen:+.3%})")
        )
        setting = cell.setting
        name = setting.attention + (", checkpointing" if setting.checkpointing else "")
        row = (name, str(setting.batch), str(cell.length), f"{cell.predicted_bytes:,}", *texts)
        rows.append(row)
    return Table(
        title="Peak of tensors on the CPU, in bytes: predicted and measured",
        columns=("attention", "batch", "length", "predicted", "measured", "difference"),
        rows=tuple(rows),
        numeric=(False, *[True] * 5),
    )
