"""Subjects: what commands predict, a profile or a program (`FILE.py:FACTORY`), decided in one place.

`predict`, `explain`, `gate` and `baseline` treat both alike. An option that means nothing for one of them is
refused by its name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import ProfileError
from ftbench.cli.completion import profiles
from ftbench.cli.options import forecast_of, predictor, selection_of

if TYPE_CHECKING:
    from ftbench.gate.baseline import Baseline
    from ftbench.gate.places import Place
    from ftbench.gate.predicted import RefusedGroup
    from ftbench.plan.gpus import Gpu
    from ftbench.plan.grid import Grid
    from ftbench.plan.programs import ProgramGrid
    from ftbench.records.prediction import AttentionKernel, Predictions

SubjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE|FILE.py:FACTORY",
        help="A profile's name or TOML file; or a function that builds a training step.",
        autocompletion=profiles,
    ),
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="With FILE.py:FACTORY: an argument of the factory; a list is an axis of a grid. Repeatable.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", min=1, help="With FILE.py:FACTORY: the traced steps.  [default: 3]"
    ),
]
LargestOption = Annotated[
    str | None,
    typer.Option(
        "--largest",
        metavar="NAME",
        help="With FILE.py:FACTORY and --gpu: search the largest value of this argument that fits.",
    ),
]

GpusOption = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N,...",
        help="The number of GPUs, one process each: 8, or 1,2,4, or 1..8.",
    ),
]

_MOST_GPUS = 65_536
_OF_PROGRAMS = "applies to FILE.py:FACTORY only"
OF_PROFILES = "applies to profiles only"


class ProfileSubject:
    """A profile: its whole grid, and the chosen part of it."""

    def __init__(self, name: str, whole: Grid, grid: Grid) -> None:
        self.name = name
        self.whole = whole
        self.grid = grid

    def first(self) -> ProfileSubject:
        """Return the subject with its first chosen cell only."""
        alone = self.grid.model_copy(update={"cells": self.grid.cells[:1]})
        return ProfileSubject(self.name, self.whole, alone)

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
        return forecast_of(
            self.grid,
            gpus,
            largest_batch=bool(gpus) and not explain and not allocations,
            explain=explain,
            attention=attention,
            expandable_segments=expandable_segments,
            assume_torch=assume_torch,
            allocations_of=tuple(cell.cell_id for cell in self.grid.cells) if allocations else (),
        )

    def baseline(
        self, gpus: Sequence[Gpu], kernel: AttentionKernel | None
    ) -> tuple[Baseline, tuple[RefusedGroup, ...]]:
        """Return the baseline of the chosen cells, and the groups that cannot be predicted."""
        from ftbench.gate.predicted import baseline_of, refused_groups, select

        selection = select(self.whole, self.grid.cells)
        predictions = forecast_of(
            self.grid,
            gpus,
            largest_batch=bool(gpus),
            attention=kernel,
            breakdown_of=selection.references,
        ).on_every_card()
        found = baseline_of(self.name, selection, predictions, gpus, attention_kernel=kernel)
        return found, refused_groups(selection, predictions)

    def left_out(self) -> frozenset[Place]:
        """Return the places of the cells that are not chosen."""
        from ftbench.gate.predicted import select

        return select(self.whole, self.grid.cells).left_out


class ProgramSubject:
    """A program: the whole grid of its arguments, and the chosen part of it.

    `largest` names an argument whose largest value that fits is searched.
    """

    def __init__(self, whole: ProgramGrid, grid: ProgramGrid, largest: str | None = None) -> None:
        self.name = whole.program.name
        self.whole = whole
        self.grid = grid
        self._largest = largest

    def first(self) -> ProgramSubject:
        """Return the subject with its first chosen cell only."""
        return ProgramSubject(
            self.whole, self.grid.model_copy(update={"cells": self.grid.cells[:1]})
        )

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
        from ftbench.cli.progress import phases_on
        from ftbench.execute.prediction_worker import forecast, processes
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
            processes=processes(),
            largest=self._largest,
        )
        with phases_on(sys.stderr) as show:
            return forecast(request, predictor(), on_progress=show)

    def baseline(
        self, gpus: Sequence[Gpu], kernel: AttentionKernel | None
    ) -> tuple[Baseline, tuple[RefusedGroup, ...]]:
        """Return the baseline of the chosen cells, and those that cannot be predicted."""
        from ftbench.gate.predicted_programs import baseline_of_program, refused_of_program

        predictions = self.predictions(gpus, attention=kernel, parts=True).on_every_card()
        found = baseline_of_program(self.whole, predictions, gpus, attention_kernel=kernel)
        return found, refused_of_program(self.whole, predictions)

    def left_out(self) -> frozenset[Place]:
        """Return the places of the cells that are not chosen."""
        from ftbench.gate.predicted_programs import places_left_out

        return places_left_out(self.whole, self.grid)


Subject = ProfileSubject | ProgramSubject


def subject_of(
    reference: str,
    only: str | None = None,
    *,
    overrides: list[str] | None = None,
    arguments: list[str] | None = None,
    steps: int | None = None,
    largest: str | None = None,
    gpus: str | None = None,
    option: str = "--only",
) -> Subject:
    """Return the subject that the command line names; raises ProfileError and WorkloadError."""
    from ftbench.plan.programs import is_program

    selection = selection_of(only, option=option)
    if is_program(reference):
        refuse_options(reference, OF_PROFILES, {"--set": overrides})
        whole = _program_grid(reference, arguments, steps, gpus)
        return ProgramSubject(whole, whole.only(selection, option=option), largest)
    from ftbench.plan.grid import on_gpus
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import resolve

    given = {"--arg": arguments, "--steps": steps, "--largest": largest}
    refuse_options(reference, _OF_PROGRAMS, given)
    profile = load_profile(reference, overrides or ())
    if gpus:
        profile = on_gpus(profile, numbers_of_gpus(gpus))
    grid = resolve(profile)
    return ProfileSubject(profile.name, grid, grid.only(selection, option=option))


def _program_grid(
    reference: str, arguments: list[str] | None, steps: int | None, gpus: str | None
) -> ProgramGrid:
    from ftbench.plan.programs import parse_program, program_grid
    from ftbench.records.prediction import TRACED_STEPS

    steps = None if steps == TRACED_STEPS else steps
    numbers = numbers_of_gpus(gpus) if gpus else ()
    return program_grid(parse_program(reference), arguments or (), steps, numbers)


def numbers_of_gpus(text: str) -> tuple[int, ...]:
    """Return the numbers that `--gpus` names: `8`, `1,2,4` or `1..8`, which has both ends; raises ProfileError."""
    try:
        first, dots, last = text.partition("..")
        numbers = range(int(first), int(last) + 1) if dots else map(int, text.split(","))
        found = tuple(dict.fromkeys(numbers))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > _MOST_GPUS:
        raise ProfileError(
            "not a number of GPUs",
            where="--gpus",
            got=text,
            expected=f"8, or 1,2,4, or 1..8; each from 1 to {_MOST_GPUS:,}",
        )
    return found


def refuse_options(reference: str, why: str, given: Mapping[str, object]) -> None:
    """Raise ProfileError for the first of these options that is given: it means nothing for this subject."""
    for option, value in given.items():
        if value:
            raise ProfileError(f"this option {why}", where=option, got=f"{option} with {reference}")


def shown_name(reference: str) -> str:
    """Return a subject's name in titles: of a profile also if it is given by its file."""
    return Path(reference).stem if reference.endswith(".toml") else reference


def baseline_name(reference: str) -> str:
    """Return the name of the file of a subject's baseline, without its folder and suffix; raises ProfileError."""
    from ftbench.plan.programs import is_program, parse_program

    return parse_program(reference).dotted if is_program(reference) else shown_name(reference)
