"""Predict: the memory that cells need on a card, without a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from ftbench.base.errors import ProfileError
from ftbench.verbs.asking import asked_of
from ftbench.verbs.cards import calibrated_gpus, with_calibration_note
from ftbench.verbs.given import attention_of, gpus_numbers, names_of, whole_of
from ftbench.verbs.notebook import page_of
from ftbench.verbs.profiles import ProfileLike, profile_of, texts_of
from ftbench.verbs.subjects import Subject, profile_subject, program_subject

if TYPE_CHECKING:
    import pandas as pd

    from ftbench.plan.grid import Grid
    from ftbench.plan.programs import ProgramGrid
    from ftbench.records.prediction import AttentionKernel, CardPrediction, Predictions

_FIGURES = ("requested", "allocated", "reserved", "process")


@dataclasses.dataclass(frozen=True)
class PredictedGrid:
    """The predicted memory of a grid's cells; a notebook shows it as a table.

    `predictions` has all that is known, `gpus` the names of the cards.
    """

    name: str
    grid: Grid | ProgramGrid
    predictions: Predictions
    gpus: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per cell and card: `cell_id`, the axes, and bytes.

        `tensors_bytes` is exact, on any card. Of a card there are `requested_bytes`, `allocated_bytes`,
        `reserved_bytes` and `process_bytes`, each with `..._low_bytes` and `..._high_bytes`, and the `verdict`.
        A cell that is not predicted has its reason in `not_predicted`.
        """
        import pandas as pd

        reasons = {one.cell_id: one.reason for one in self.predictions.refused}
        rows: list[dict[str, Any]] = []
        for cell in self.grid.cells:
            own = {"cell_id": cell.cell_id} | {
                axis: cell.value(axis) for axis in self.grid.axis_names
            }
            found = self.predictions.of(cell.cell_id)
            if found is None:
                rows.append(own | {"not_predicted": reasons.get(cell.cell_id, "")})
                continue
            own["tensors_bytes"] = found.tensors.value_bytes
            rows += [own | _of_card(card) for card in found.cards] or [own]
        return pd.DataFrame(rows).astype({"cell_id": str})

    def _repr_html_(self) -> str:
        from ftbench.report.commands.prediction import notes_lines, predictions_table

        table = predictions_table(self.grid, self.predictions, self.gpus)
        return page_of([table], notes_lines(self.predictions))


def predict(
    subject: ProfileLike,
    *,
    gpu: str | Sequence[str] | None = None,
    gpus: SupportsIndex | Sequence[SupportsIndex] = (),
    settings: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    steps: int | None = None,
    attention: AttentionKernel | None = None,
    expandable_segments: bool = False,
    cache: bool = True,
) -> PredictedGrid:
    """Predict the peak GPU memory of a profile's cells, or of a training loop of your own, without a GPU.

    `subject` is a profile (`profile_of` says in which forms), or `FILE.py:FACTORY` with its `arguments`, of which
    a list is an axis. `gpu` names cards of the catalogue, `gpus` how many of them a cell has; `only` selects
    cells by their values on the axes. Raises ProfileError, WorkloadError and PredictionError.
    """
    asked = subject_for(subject, gpus, settings, only, arguments, steps, cache=cache)
    cards = calibrated_gpus(names_of(gpu))
    predictions = asked.predictions(
        cards,
        attention=attention_of(attention, where="attention"),
        expandable_segments=expandable_segments,
    )
    predictions = with_calibration_note(predictions, cards)
    return PredictedGrid(asked.name, asked.grid, predictions, tuple(card.name for card in cards))


def subject_for(
    subject: ProfileLike,
    gpus: SupportsIndex | Sequence[SupportsIndex],
    settings: Mapping[str, Any] | None,
    only: Mapping[str, Any] | None,
    arguments: Mapping[str, Any] | None,
    steps: int | None,
    *,
    cache: bool,
) -> Subject:
    """Return the subject that a Python caller names; raises ProfileError and WorkloadError."""
    from ftbench.plan.programs import is_program

    numbers = gpus_numbers(gpus)
    ask = asked_of(cached=cache)
    if isinstance(subject, str) and is_program(subject):
        _refuse(subject, settings=settings)
        texts = texts_of(arguments or {})
        return program_subject(
            subject,
            only or {},
            numbers,
            ask,
            arguments=texts,
            steps=whole_of("steps", steps),
            option="only",
        )
    _refuse("a profile", arguments=arguments, steps=steps)
    return profile_subject(profile_of(subject, settings), only or {}, numbers, ask, option="only")


def _refuse(subject: str, **given: object) -> None:
    """Raise ProfileError for an argument that means nothing for a subject."""
    for name, value in given.items():
        if value:
            raise ProfileError(f"means nothing for {subject}", where=name, got=repr(value))


def _of_card(card: CardPrediction) -> dict[str, Any]:
    row: dict[str, Any] = {"gpu": card.gpu}
    for name in _FIGURES:
        figure = getattr(card, name)
        row |= {
            f"{name}_bytes": figure.value_bytes,
            f"{name}_low_bytes": figure.low_bytes,
            f"{name}_high_bytes": figure.high_bytes,
        }
    return row | {"verdict": card.verdict}
