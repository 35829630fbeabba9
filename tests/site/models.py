"""The fields of profiles and records as Markdown, from the models themselves."""

import json
import types
import typing
from types import MappingProxyType

from pydantic import BaseModel

from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import NOT_IN_A_FILE
from ftbench.records.environment import Environment
from ftbench.records.record import Record
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.render.markdown import escaped, table_text

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}
# Where a model's table stands in a profile's file.
_TABLES = {
    "Workload": "[workload]",
    "GridBlock": "[[grid]]",
    "LoraSettings": "[lora]",
    "Parallel": "[parallel]",
    "Run": "[run]",
}


def models_of(*roots):
    """Return models and those of their fields, each once, in the order in which they are met."""
    found = []

    def meet(model):
        if model not in found:
            found.append(model)
            for field in model.model_fields.values():
                for one in _models_in(field.annotation):
                    meet(one)

    for root in roots:
        meet(root)
    return found


def _models_in(annotation):
    """Return the models that a field's type has in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def undescribed(*roots):
    """Return the names of the fields without a description, such as Phase.wall_s."""
    return [
        f"{model.__name__}.{name}"
        for model in models_of(*roots)
        for name, field in model.model_fields.items()
        if not field.description
    ]


def profile_page():
    """Return the page of a profile's keys as Markdown."""
    head = (
        "# Keys of a profile",
        "A profile is a TOML file with these keys. `ftbench schema` prints the same as JSON Schema, for editors."
        " How to write one: [Profiles](../docs/profiles.md).",
    )
    return _page(head, models_of(Profile), places=_TABLES, left_out=NOT_IN_A_FILE)


def record_page():
    """Return the page of a record's fields as Markdown."""
    head = (
        "# Fields of a record",
        "`records/NAME.json` in a run directory is one run of one cell. Bytes and seconds, with the unit in the"
        " name. What is absent is `null`, and `absent` has the reason. How each figure is read:"
        " [Measuring](../docs/measuring.md).",
    )
    return _page(head, models_of(Record, Environment))


def _page(head, models, places=MappingProxyType({}), left_out=()):
    """Return a page: its head, and a section for each model."""
    parts = [*head]
    for model in models:
        place = places.get(model.__name__)
        parts += [f"## {model.__name__}" + (f": `{place}`" if place else "")]
        parts += [escaped(" ".join(paragraph.split())) for paragraph in _paragraphs(model)]
        parts.append(table_text(_fields_table(model, left_out)))
    return "\n\n".join(parts) + "\n"


def _paragraphs(model):
    return (model.__doc__ or "").split("\n\n")


def _fields_table(model, left_out):
    """Return one row per field: its name in the file, what it is, its type and its default."""
    rows = tuple(
        (f"`{field.alias or name}`", field.description, _words(field.annotation), _default(field))
        for name, field in model.model_fields.items()
        if name not in left_out
    )
    return Table(
        title=model.__name__,
        columns=("field", "meaning", "type", "default"),
        rows=rows,
        numeric=(False,) * 4,
    )


def _default(field):
    """Return a field's default as the file would have it; a dash for none, or for one that is absent."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ((), {}):
        return ABSENT
    return f"`{json.dumps(value)}`"


def _words(annotation):
    """Return a type in words."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(parts[0])
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(_words(part) for part in parts if part is not type(None))
        return " or ".join(words)
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"list of {_words(parts[0])}"
        return "(" + ", ".join(map(_words, parts)) + ")"
    if origin is dict:
        return f"table of {_words(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    return _PLAIN.get(annotation, "any value")
