"""A data set and a model, looked at by workers; and its user, asked about the columns."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from ftbench.base.errors import ProfileError, WorkloadError

if TYPE_CHECKING:
    from rich.console import Console

    from ftbench.execute.engines.base import Engine
    from ftbench.plan.profile import Workload
    from ftbench.records.first_look import DataColumns, TextFacts
    from ftbench.verbs.starter.columns import Given, Roles, Unclear

_TIMING_S = 60.0  # timing the steps of a model, at most about
_NEVER = "nobody who could be asked"
_NONE = "none"


class Look:
    """A data set and a model, looked at by workers."""

    def __init__(
        self, data: str, model: str, train_split: str | None, more: dict[str, object]
    ) -> None:
        from ftbench.plan.devices import choose_device
        from ftbench.plan.one_cell import settings_of_model

        self.data, self._split = data, train_split
        self.device = choose_device("auto")
        # What the user says of model and data beside their columns.
        self.known = {"model": model, **settings_of_model(model), "dataset": data, **more}
        self.found: DataColumns | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Return the engine of the workers, which import their libraries once."""
        from ftbench.execute.engines.local import LocalEngine

        if self._engine is None:
            on_cpu = self.device.kind == "cpu"
            self._engine = LocalEngine("forkserver" if on_cpu else "spawn", self.device.environment)
        return self._engine

    def roles(self, given: Given, console: Console, *, ask: bool) -> Roles:
        """Return the roles of the columns: given, guessed, or asked for. Raises ProfileError if that is unclear."""
        from ftbench.report.commands.first_look import columns_table
        from ftbench.report.render.terminal import show_line, show_table
        from ftbench.verbs.starter.columns import Unclear, guess

        self.found = found = self._columns()
        show_table(console, columns_table(found))
        for note in found.notes:
            show_line(console, note)
        _require_header(found, given)
        roles = guess(found, given)
        while ask and isinstance(roles, Unclear):
            given = _answered(roles, given)
            roles = guess(found, given)
        if isinstance(roles, Unclear):
            raise _unclear(roles)
        if ask and not (given.text and (given.label or given.completion)):
            roles = _confirmed(roles, found, given)
        console.print()
        show_line(console, f"{_said(roles)}.")
        return roles

    def _columns(self) -> DataColumns:
        from ftbench.execute.first_look import columns_of
        from ftbench.plan.sources import resolve_data, resolve_model
        from ftbench.records.first_look import ColumnsRequest
        from ftbench.report.render.terminal import phases_on

        workload = _workload({**self.known, "eval_size": 1})
        request = ColumnsRequest(
            data=resolve_data(workload), model=resolve_model(workload), train_split=self._split
        )
        with phases_on(sys.stderr) as show, _told_by_set():
            return columns_of(request, self.engine, show)

    def workload(self, roles: Roles) -> dict[str, object]:
        """Return the settings of `[workload]`, without the number of evaluation examples."""
        assert self.found is not None
        columns = {column.name: column for column in self.found.columns}
        texts = (*roles.text, *filter(None, (roles.completion,)))
        settings = {**roles.settings(), **self.known}
        if self.found.train_split != "train":
            settings["train_split"] = self.found.train_split
        if any(columns[name].missing for name in texts if columns[name].kind == "text"):
            settings["drop_rows_without_text"] = True
        if roles.label is not None and columns[roles.label].missing:
            settings["drop_rows_without_label"] = True
        return settings

    def texts(self, settings: dict[str, object]) -> TextFacts:
        """Return the facts about the texts; adds `eval_split` to the settings if no other split can be used."""
        try:
            return self._texts(settings)
        except WorkloadError as error:
            if "from-train" not in (error.hint or "") or "eval_split" in settings:
                raise
            settings["eval_split"] = "from-train"
            return self._texts(settings)

    def _texts(self, settings: dict[str, object]) -> TextFacts:
        from ftbench.execute.first_look import texts_of
        from ftbench.plan.sources import resolve_data, resolve_model
        from ftbench.records.first_look import TextsRequest
        from ftbench.report.render.terminal import phases_on
        from ftbench.verbs.starter.first_grid import BATCH

        workload = _workload({**settings, "eval_size": 1, "drop_duplicates": True})
        request = TextsRequest(
            data=resolve_data(workload),
            model=resolve_model(workload),
            device=self.device.kind,
            batch=BATCH,
            seconds=_TIMING_S,
        )
        with phases_on(sys.stderr) as show, _told_by_set():
            return texts_of(request, self.engine, show)


@contextlib.contextmanager
def _told_by_set() -> Iterator[None]:
    """Let a hint at a key of the profile, which is not written yet, name the option that has it here."""
    try:
        yield
    except WorkloadError as error:
        if error.hint and "[workload]" in error.hint:
            error.hint += " of a profile; here: --set workload.KEY=VALUE"
        raise


def _workload(settings: dict[str, object]) -> Workload:
    """Return a validated workload; raises ProfileError, as for a profile's file."""
    from ftbench.plan.profile_file import build_profile

    point = {"max_length": [1], "per_device_train_batch_size": [1], "train_size": [1]}
    data = {"workload": settings, "grid": [point], "name": "init"}
    return build_profile(data, where="init").workload


def _require_header(found: DataColumns, given: Given) -> None:
    """Raise WorkloadError if a CSV file seems to have no names of columns, and none was given."""
    if found.no_header is None or given.text or given.label:
        return
    names = ", ".join(column.name[:40] for column in found.columns)
    raise WorkloadError(
        f"the first row seems to be data, not the names of the columns: it has {found.no_header}",
        where="workload.dataset",
        got=names,
        expected="a first row with names, such as text,label",
        hint="add such a row; or name the columns with --text and --label if these are their names",
    )


def _unclear(unclear: Unclear) -> ProfileError:
    """Return the error for a role that nobody could be asked about."""
    if not unclear.options:
        return ProfileError(
            f"no column looks like the {unclear.role}",
            where=unclear.option,
            hint="a file of another form may help: one row per text, with names in the first row",
        )
    hint = f"{unclear.option} {shlex.quote(unclear.options[0])}"
    if unclear.otherwise is not None:
        hint += (
            f"; or --task {unclear.otherwise.task}, if there is none: {_said(unclear.otherwise)}"
        )
    return ProfileError(
        f"several columns may be the {unclear.role}, and there is {_NEVER}"
        if len(unclear.options) > 1
        else f"no column is the {unclear.role} beyond doubt, and there is {_NEVER}",
        where=unclear.option,
        expected=f"one of {', '.join(unclear.options)}",
        hint=hint,
    )


def _answered(unclear: Unclear, given: Given) -> Given:
    """Return what the user says about a role; asks until it is one of the columns, or none if there need not be."""
    if not unclear.options:
        raise _unclear(unclear)
    none = (_NONE,) if unclear.otherwise is not None else ()
    question = f"Which column is the {unclear.role}?"
    answer = _asked(question, (*unclear.options, *none), default=None)
    if unclear.otherwise is not None and answer not in unclear.options:
        return given.with_option("--task", unclear.otherwise.task)
    return given.with_option(unclear.option, answer)


def _asked(question: str, options: tuple[str, ...], *, default: str | None) -> str:
    while True:
        answer = typer.prompt(f"{question} ({', '.join(options)})", default=default)
        if answer in options:
            return str(answer)
        print(f"no such column: {answer}")


def _confirmed(roles: Roles, found: DataColumns, given: Given) -> Roles:
    """Return the roles after the user has seen them, and perhaps named other columns."""
    from ftbench.verbs.starter.columns import Given, Unclear, guess

    names = tuple(column.name for column in found.columns if column.refused is None)
    if len(roles.text) != 1 or roles.messages is not None:
        typer.confirm(f"{_said(roles)}: right?", default=True, abort=True)
        return roles
    text = _asked("Texts?", names, default=roles.text[0])
    label = roles.label and _asked("Labels?", names, default=roles.label)
    completion = roles.completion and _asked("Completions?", names, default=roles.completion)
    if (text, label, completion) == (roles.text[0], roles.label, roles.completion):
        return roles
    again = guess(found, Given(given.task, text=(text,), label=label, completion=completion))
    if isinstance(again, Unclear):
        raise _unclear(again)
    return again


def _said(roles: Roles) -> str:
    """Return the roles in words."""
    parts = [f"{name.removesuffix('_column')} {value}" for name, value in roles.settings().items()]
    return ", ".join(
        part.replace("('", "").replace("', '", " and ").replace("')", "") for part in parts
    )
