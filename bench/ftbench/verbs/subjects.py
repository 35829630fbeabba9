"""Subjects: what is predicted, a profile or a program (`FILE.py:FACTORY`), both asked alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.base.errors import ProfileError

if TYPE_CHECKING:
    from ftbench.gating.baseline import Baseline
    from ftbench.gating.places import Place
    from ftbench.gating.predicted import RefusedGroup
    from ftbench.plan.gpus import Gpu
    from ftbench.plan.grid import Grid
    from ftbench.plan.profile import Profile
    from ftbench.plan.programs import ProgramGrid
    from ftbench.records.prediction import AttentionKernel, Predictions
    from ftbench.verbs.asking import Ask


class ProfileSubject:
    """A profile: its whole grid, and the chosen part of it."""

    def __init__(self, name: str, whole: Grid, grid: Grid, ask: Ask) -> None:
        self.name = name
        self.whole = whole
        self.grid = grid
        self._ask = ask

    def first(self) -> ProfileSubject:
        """Return the subject with its first chosen cell only."""
        alone = self.grid.model_copy(update={"cells": self.grid.cells[:1]})
        return ProfileSubject(self.name, self.whole, alone, self._ask)

    def predictions(
        self,
        gpus: Sequence[Gpu],
        *,
        explain: bool = False,
        attention: AttentionKernel | None = None,
        expandable_segments: bool = False,
        assume_torch: tuple[int, int] | None = None,
        allocations: bool = False,
    ) -> Predictions:
        """Return the predictions of the chosen cells, and the largest batches on the cards.

        With `allocations`, each cell has them in order, and no largest batch is searched.
        """
        from ftbench.records.prediction import PredictRequest

        request = PredictRequest(
            cells=self.grid.cells,
            gpus=tuple(gpus),
            largest_batch=bool(gpus) and not explain and not allocations,
            explain=explain,
            attention=attention,
            expandable_segments=expandable_segments,
            assume_torch=assume_torch,
            allocations_of=tuple(cell.cell_id for cell in self.grid.cells) if allocations else (),
        )
        return self._ask(request)

    def baseline(
        self, gpus: Sequence[Gpu], kernel: AttentionKernel | None
    ) -> tuple[Baseline, tuple[RefusedGroup, ...]]:
        """Return the baseline of the chosen cells, and the groups that cannot be predicted."""
        from ftbench.gating.predicted import baseline_of, refused_groups, select
        from ftbench.records.prediction import PredictRequest

        selection = select(self.whole, self.grid.cells)
        request = PredictRequest(
            cells=self.grid.cells,
            gpus=tuple(gpus),
            largest_batch=bool(gpus),
            attention=kernel,
            breakdown_of=selection.references,
        )
        predictions = self._ask(request).on_every_card()
        found = baseline_of(self.name, selection, predictions, gpus, attention_kernel=kernel)
        return found, refused_groups(selection, predictions)

    def left_out(self) -> frozenset[Place]:
        """Return the places of the cells that are not chosen."""
        from ftbench.gating.predicted import select

        return select(self.whole, self.grid.cells).left_out


class ProgramSubject:
    """A program: the whole grid of its arguments, and the chosen part of it.

    `largest` names an argument whose largest value that fits is searched.
    """

    def __init__(
        self,
        whole: ProgramGrid,
        grid: ProgramGrid,
        ask: Ask,
        largest: str | None = None,
    ) -> None:
        self.name = whole.program.name
        self.whole = whole
        self.grid = grid
        self._largest = largest
        self._ask = ask

    def first(self) -> ProgramSubject:
        """Return the subject with its first chosen cell only."""
        alone = self.grid.model_copy(update={"cells": self.grid.cells[:1]})
        return ProgramSubject(self.whole, alone, self._ask)

    def predictions(
        self,
        gpus: Sequence[Gpu],
        *,
        explain: bool = False,
        attention: AttentionKernel | None = None,
        expandable_segments: bool = False,
        assume_torch: tuple[int, int] | None = None,
        parts: bool = False,
        allocations: bool = False,
    ) -> Predictions:
        """Return the predictions of the chosen cells; on request, with the breakdown or the allocations of each."""
        from ftbench.records.prediction import ProgramRequest

        if self._largest is not None and not gpus:
            raise ProfileError(
                "what fits is asked of a card", where="--largest", expected="--gpu NAME beside it"
            )
        request = ProgramRequest(
            program=self.whole.program,
            cells=self.grid.cells,
            gpus=tuple(gpus),
            explain=explain,
            attention=attention,
            expandable_segments=expandable_segments,
            assume_torch=assume_torch,
            breakdown_of=tuple(cell.cell_id for cell in self.grid.cells) if parts else (),
            allocations_of=tuple(cell.cell_id for cell in self.grid.cells) if allocations else (),
            largest=self._largest,
        )
        return self._ask(request)

    def baseline(
        self, gpus: Sequence[Gpu], kernel: AttentionKernel | None
    ) -> tuple[Baseline, tuple[RefusedGroup, ...]]:
        """Return the baseline of the chosen cells, and those that cannot be predicted."""
        from ftbench.gating.predicted_programs import baseline_of_program, refused_of_program

        predictions = self.predictions(gpus, attention=kernel, parts=True).on_every_card()
        found = baseline_of_program(self.whole, predictions, gpus, attention_kernel=kernel)
        return found, refused_of_program(self.whole, predictions)

    def left_out(self) -> frozenset[Place]:
        """Return the places of the cells that are not chosen."""
        from ftbench.gating.predicted_programs import places_left_out

        return places_left_out(self.whole, self.grid)


Subject = ProfileSubject | ProgramSubject


def profile_subject(
    profile: Profile,
    selection: Mapping[str, object],
    numbers: Sequence[int],
    ask: Ask,
    *,
    option: str = "--only",
) -> ProfileSubject:
    """Return a profile as a subject, on these numbers of GPUs if any are given.

    Raises ProfileError and WorkloadError.
    """
    from ftbench.plan.grid import on_gpus
    from ftbench.plan.resolve import resolve

    grid = resolve(on_gpus(profile, numbers) if numbers else profile)
    return ProfileSubject(profile.name, grid, grid.only(selection, option=option), ask)


def program_subject(
    reference: str,
    selection: Mapping[str, object],
    numbers: Sequence[int],
    ask: Ask,
    *,
    arguments: Sequence[str] = (),
    steps: int | None = None,
    largest: str | None = None,
    option: str = "--only",
) -> ProgramSubject:
    """Return a program as a subject, its arguments each `NAME=VALUE`; raises ProfileError."""
    from ftbench.plan.programs import parse_program, program_grid
    from ftbench.records.prediction import TRACED_STEPS

    steps = None if steps == TRACED_STEPS else steps
    whole = program_grid(parse_program(reference), arguments, steps, numbers)
    return ProgramSubject(whole, whole.only(selection, option=option), ask, largest)


def shown_name(reference: str) -> str:
    """Return a subject's name in titles: of a profile also if it is given by its file."""
    return Path(reference).stem if reference.endswith(".toml") else reference


def baseline_name(reference: str) -> str:
    """Return the name of the file of a subject's baseline, without its folder and suffix; raises ProfileError."""
    from ftbench.plan.programs import is_program, parse_program

    return parse_program(reference).dotted if is_program(reference) else shown_name(reference)
