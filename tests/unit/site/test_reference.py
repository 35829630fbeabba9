import click
import pytest
import typer
from pydantic import BaseModel, Field

import ftbench
from ftbench.cli import app
from ftbench.plan.gpus import load_gpus
from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import NOT_IN_A_FILE, profile_schema
from ftbench.plan.settings import AXES, SETTINGS, setting
from ftbench.records.environment import Environment
from ftbench.records.figures import FIGURES
from ftbench.records.record import Record
from ftbench.report.elements.glossary import TERMS
from ftbench.report.elements.table import ABSENT
from tests.site.commands import _row
from tests.site.models import models_of, undescribed
from tests.site.reference import PAGES, write_reference
from tests.site.tables import meaning_of_figure


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "reference"
    write_reference(folder)
    return {file.stem: file.read_text() for file in folder.iterdir()}


def rows(page, heading):
    """Return the cells of the first column in the table under a heading."""
    part = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in part.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ").strip("`") for line in table[2:]]


def test_every_field_of_profiles_and_records_says_what_it_is():
    assert undescribed(Profile, Record, Environment) == []


def test_a_field_without_a_description_is_seen_in_whatever_holds_its_model():
    class Inner(BaseModel):
        told: int = Field(description="Told.")
        silent: int

    class Outer(BaseModel):
        inside: dict[str, tuple[Inner, ...] | None] = Field(description="Told.")

    assert models_of(Outer) == [Outer, Inner]
    assert undescribed(Outer) == ["Inner.silent"]


def test_a_profile_s_json_schema_has_the_descriptions():
    schema = profile_schema()
    tables = [schema, *schema["$defs"].values()]
    keys = [(name, key) for one in tables for name, key in one.get("properties", {}).items()]
    assert len(keys) > 80
    assert [name for name, key in keys if not key.get("description")] == []


def test_every_page_is_written(pages):
    assert set(pages) == set(PAGES)
    assert all(text.startswith("# ") and len(text) > 400 for text in pages.values())


def test_every_command_and_every_option_is_there(pages):
    def leaves(group, name):
        for own, command in group.commands.items():
            if isinstance(command, click.Group) or hasattr(command, "commands"):
                yield from leaves(command, f"{name} {own}")
            else:
                yield f"{name} {own}", command

    found = dict(leaves(typer.main.get_command(app), "ftbench"))
    assert {"ftbench run", "ftbench baseline write"} <= set(found)
    for name, command in found.items():
        told = " ".join(rows(pages["commands"], name))
        given = [option for one in command.params for option in one.opts if option[0] == "-"]
        assert [option for option in given if option not in told] == []
        assert [one.name for one in command.params if not getattr(one, "help", None)] == []


@pytest.mark.parametrize(
    ("told", "row"),
    [
        ("Steps.  [default: 3]  [x>=1]", ("`--n`", "Steps.", "3; x>=1")),
        ("A file.  [required]", ("`--n`", "A file.", "required")),
        ("Minutes.  [default: 5.0; x>=0.1]", ("`--n`", "Minutes.", "5.0; x>=0.1")),
        ("Yes, or [no].", ("`--n`", "Yes, or [no].", ABSENT)),
    ],
)
def test_a_default_or_a_limit_has_a_column_of_its_own(told, row):
    assert _row("--n", told) == row


def test_the_keys_of_a_profile_are_those_of_its_file(pages):
    assert rows(pages["profile"], "Profile") == [
        name for name in Profile.model_fields if name not in NOT_IN_A_FILE
    ]
    assert rows(pages["profile"], "Condition") == ["not", "from", "to"]
    assert "lora_alpha" in rows(pages["profile"], "LoraSettings: `[lora]`")


def test_the_fields_of_a_record_are_the_model_s(pages):
    for model in models_of(Record, Environment):
        names = [field.alias or name for name, field in model.model_fields.items()]
        wanted = [
            heading
            for heading in pages["record"].split("\n## ")
            if heading.split()[0] == model.__name__
        ]
        assert all(f"| `{name}` |" in wanted[0] for name in names)


def test_every_figure_and_every_axis_has_a_meaning(pages):
    assert [one.name for one in FIGURES if not meaning_of_figure(one)] == []
    assert [one.name for one in AXES if not one.meaning] == []
    assert all(f"| `{one.name}` |" in pages["figures"] for one in FIGURES)
    assert all(f"| `{name}` |" in pages["settings"] for name in SETTINGS)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("step_median_s", "median"),
        ("load_s", "phase load"),
        ("peak_rss_bytes", "Resident"),
        ("mfu", "share"),
    ],
)
def test_a_figure_s_meaning_is_that_of_the_field_it_is_read_from(name, word):
    (figure,) = (one for one in FIGURES if one.name == name)
    assert word in meaning_of_figure(figure)


def test_a_setting_says_what_it_moves(pages):
    lines = {
        line.split("`")[1]: line
        for line in pages["settings"].splitlines()
        if line.startswith("| `")
    }
    assert lines["max_length"].endswith("| everything |")
    assert lines["learning_rate"].endswith("| accuracy |")
    assert lines["run_name"].endswith("| nothing |")
    assert setting("max_length").meaning in lines["max_length"]


def test_cards_terms_and_functions_are_all_there(pages):
    assert all(f"| {name} |" in pages["cards"] for name in load_gpus())
    assert all(f"**{term.name}**" in pages["glossary"] for term in TERMS)
    for module, function in ftbench._VERBS.values():
        assert f"::: {module}.{function}\n" in pages["python"]
