"""The figures, the settings, the cards and the glossary as Markdown, each from its one table."""

import typing

from ftbench.plan.gpus import load_gpus
from ftbench.plan.settings import ARGUMENTS, AXES, EVERYTHING, WORKLOAD, Quantity
from ftbench.records.figures import FIGURES
from ftbench.records.measurement import Measurement, RankMeasurement
from ftbench.report.commands.catalogues import gpus_table, list_profiles, profiles_table
from ftbench.report.elements.glossary import TERMS
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.render.markdown import escaped, table_text

_PLACES = {"torch": "torch's allocator", "card": "the card", "host": "the host"}
_QUANTITIES = typing.get_args(Quantity)


def meaning_of_figure(figure):
    """Return what a figure is: its own words, else those of the field of a record that its path ends in."""
    if figure.meaning:
        return figure.meaning
    *folders, name = figure.path.split(".")
    if folders[:1] == ["phases"]:
        return f"Seconds of the phase {folders[1]}, by the clock."
    model = Measurement
    for folder in folders:
        field = model.model_fields.get(folder) or RankMeasurement.model_fields[folder]
        (model,) = models_of_field(field)
    return model.model_fields[name].description


def models_of_field(field):
    """Return the model of a field, and no more than one."""
    found = [
        part
        for part in (field.annotation, *typing.get_args(field.annotation))
        if hasattr(part, "model_fields")
    ]
    return found[:1]


def figures_page():
    """Return the page of the figures of a run: the columns of cells.csv and of reports."""
    rows = tuple(
        (
            f"`{one.name}`",
            meaning_of_figure(one),
            one.word or ABSENT,
            one.unit or ABSENT,
            _PLACES.get(one.place, ABSENT),
        )
        for one in FIGURES
    )
    return _page(
        "Figures",
        "The columns of `cells.csv` and of `Results.to_pandas()`. A word heads the column in tables that people"
        " read. How each is read: [Measuring](../docs/measuring.md).",
        Table("", ("column", "meaning", "word in tables", "unit", "read from"), rows, (False,) * 5),
    )


def settings_page():
    """Return the page of the settings: the quantities that each moves, and its default."""
    parts = [
        "# Settings",
        "What each setting of a cell moves, and its default. Cells are compared, predicted and gated by this table:"
        " two that differ in a setting which moves no memory have the same memory. `rss` is the host's resident"
        " memory beyond tensors, `run_time` the time of a whole run.",
    ]
    for heading, rows in (
        ("Axes of ftbench", AXES),
        ("Fields of transformers.TrainingArguments", ARGUMENTS),
        ("Keys of `[workload]` that change a cell", WORKLOAD),
    ):
        parts += [f"## {heading}", table_text(_settings_table(rows))]
    return "\n\n".join(parts) + "\n"


def _settings_table(settings):
    """Return one row per setting; the meanings are left out where no setting of the table has one here."""
    rows = tuple(
        (
            f"`{one.name}`",
            one.meaning or ABSENT,
            ABSENT if one.default is None else f"`{one.default}`",
            _moved(one.moves),
        )
        for one in settings
    )
    table = Table("", ("setting", "meaning", "default", "moves"), rows, (False,) * 4)
    return table if any(one.meaning for one in settings) else table.without("meaning")


def _moved(quantities):
    """Return the names of quantities in their order, in a word if they are all or none."""
    if quantities == EVERYTHING:
        return "everything"
    return ", ".join(one for one in _QUANTITIES if one in quantities) or "nothing"


def cards_page():
    """Return the page of the catalogue of cards."""
    table = gpus_table(list(load_gpus().values()))
    return _page(
        "Cards",
        f"{table.title}. Rates are those of the vendors' data sheets, without sparsity; memory is what CUDA"
        " reports. `ftbench gpus --json` has the source of each figure.",
        table,
    )


def profiles_page():
    """Return the page of the profiles that commands find by name."""
    return _page(
        "Profiles by name",
        "These come with ftbench. How to write your own: [Profiles](../docs/profiles.md).",
        profiles_table(list_profiles()),
    )


def glossary_page():
    """Return the page of the terms of reports."""
    terms = sorted(TERMS, key=lambda term: term.name.lower())
    parts = ["# Glossary", "The terms of reports and of this site, as every report explains them."]
    parts += [f"**{escaped(term.name)}**: {escaped(term.meaning)}" for term in terms]
    return "\n\n".join(parts) + "\n"


def _page(title, text, table):
    return f"# {title}\n\n{text}\n\n{table_text(table)}\n"
