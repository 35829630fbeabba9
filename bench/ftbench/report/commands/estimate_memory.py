"""The memory of one shape of a model: which cards it fits on, and what its peak consists of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftbench.base.units import ByteUnit, byte_unit, format_bytes
from ftbench.plan.gpus import Gpu
from ftbench.plan.profile import TaskName
from ftbench.records.prediction import CardPrediction, CellPrediction
from ftbench.report.commands.prediction import VERDICT_WORDS, figure_text, moment_text, unit_of
from ftbench.report.elements.table import Table

# The first three words are those of `accelerate estimate-memory` and of its users.
_ROLES = {"parameters": "weights", "optimizer state": "optimizer"}


def cards_table(prediction: CellPrediction, gpus: Sequence[Gpu]) -> Table:
    """Return a row per card: the memory that the process needs there, the card's total, and whether that fits."""
    fitting = [card.process for card in prediction.cards if card.verdict == "fits"]
    unit = unit_of(fitting) if fitting else None
    total_unit = byte_unit(gpu.memory_bytes for gpu in gpus)
    rows = []
    totals = {gpu.name: gpu.memory_bytes for gpu in gpus}
    for card in prediction.cards:
        total = format_bytes(totals[card.gpu], total_unit)
        rows.append((card.gpu, _needed(card, unit, total), total, VERDICT_WORDS[card.verdict]))
    return Table(
        title="GPU memory",
        columns=("card", "needed", "total", "fits"),
        rows=tuple(rows),
        numeric=(False, True, True, False),
    )


def _needed(card: CardPrediction, unit: ByteUnit | None, total: str) -> str:
    """Return what is needed of a card. If a simulation runs out of memory, its figures are those of its failure."""
    if card.verdict == "fits":
        return figure_text(card.process, unit)
    return f"more than {total}" if card.verdict == "does not fit" else f"about {total}"


def peak_text(prediction: CellPrediction) -> str:
    """Return what the peak of the tensors consists of, in a line; of several cards, on the first.

    In half precision, cards choose different kernels of attention, which keep different tensors.
    """
    composition = prediction.composition
    assert composition is not None
    unit = byte_unit(share.nbytes for share in composition.roles)
    parts = ", ".join(
        f"{_ROLES.get(share.name, share.name)} {format_bytes(share.nbytes, unit)}"
        for share in composition.roles
    )
    total = format_bytes(prediction.tensors.value_bytes, unit)
    where = f", as on {prediction.cards[0].gpu}" if len(prediction.cards) > 1 else ""
    return f"Tensors at their peak{where}: {total} ({parts}). {moment_text(composition)}"


def legend(name: str, task: TaskName) -> Iterator[str]:
    """Yield what the figures are, and what to do with the profile that follows."""
    classes = "; there are two classes" if task == "text-classification" else ""
    yield (
        "needed: what the process takes of the card, simulated, with torch's allocator and the CUDA context;"
        f" every text is of full length{classes}"
    )
    yield f"# The profile that says the same. Save it as {name}.toml, then: ftbench predict {name}.toml --gpu all"
