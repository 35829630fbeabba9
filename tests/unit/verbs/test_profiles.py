"""Profiles as Python callers give them."""

from pathlib import Path

import numpy as np
import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan.profile_file import load_profile, parse_value
from ftbench.report.document import _reproduction
from ftbench.verbs.profiles import profile_of, texts_of
from tests.factories import profile_data


def test_a_name_a_file_and_a_profile_are_the_same():
    by_name = profile_of("smoke")
    assert by_name == load_profile("smoke")
    assert profile_of(Path("profiles/smoke.toml")).grid == by_name.grid
    assert profile_of(by_name) is by_name


def test_a_mapping_is_a_profile_and_stays_as_it_was():
    data = {key: value for key, value in profile_data().items() if key != "reference"}
    before = repr(data)
    found = profile_of(data, {"training.learning_rate": 3e-5, "grid.max_length": [16, 32]})
    assert found.training["learning_rate"] == 3e-5
    assert found.grid[0].axes["max_length"] == (16, 32)
    assert found.name == data["name"]
    assert repr(data) == before


def test_settings_are_those_of_the_command_line():
    asked = {
        "training.learning_rate": 3e-5,
        "run.repeats": 2,
        "workload.task": "text-classification",
    }
    texts = [f"{key}={value}" for key, value in asked.items()]
    assert profile_of("smoke", asked) == load_profile("smoke", texts).model_copy(
        update={"overrides": tuple(texts_of(asked))}
    )


@pytest.mark.parametrize(
    "value",
    [
        1,
        2.5,
        1e-30,
        float("inf"),
        True,
        "a word",
        'quo"ted\n',
        "naïve ☃",
        [1, 2],
        ["a", "b"],
        {"a": [1]},
    ],
)
def test_values_are_toml(value):
    (text,) = texts_of({"key": value})
    assert parse_value(text.removeprefix("key=")) == value


def test_paths_are_texts_and_tuples_lists():
    assert texts_of({"a": Path("x/y"), "b": (1, 2)}) == ['a="x/y"', "b=[1, 2]"]
    assert texts_of({"a": np.int64(3), "b": np.array([1, 2])}) == ["a=3", "b=[1, 2]"]


@pytest.mark.parametrize("value", [None, object(), {1, 2}])
def test_other_values_are_refused(value):
    with pytest.raises(ProfileError, match=r"training\.x"):
        texts_of({"training.x": value})


@pytest.mark.parametrize(
    ("asked", "settings", "said"),
    [
        ("smok", None, "smoke"),
        ({"workload": {}}, None, "profile"),
        ("smoke", {"training.learning_rat": 1}, "learning_rate"),
    ],
)
def test_what_is_wrong_is_named(asked, settings, said):
    with pytest.raises(ProfileError, match=said):
        profile_of(asked, settings)


def test_a_loaded_profile_takes_no_settings():
    with pytest.raises(ProfileError, match="settings"):
        profile_of(load_profile("smoke"), {"run.repeats": 2})


def test_a_report_does_not_name_a_command_for_a_mapping():
    found = profile_of({key: value for key, value in profile_data().items() if key != "reference"})
    assert "ftbench run " not in _reproduction(found)[0]
    assert "ftbench run smoke" in _reproduction(load_profile("smoke"))[0]
