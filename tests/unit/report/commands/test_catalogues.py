import pytest

from ftbench.base.units import GIB
from ftbench.plan.gpus import load_gpus
from ftbench.report.commands.catalogues import (
    gpus_json,
    gpus_table,
    list_profiles,
    profiles_json,
    profiles_table,
)
from ftbench.report.elements.table import ABSENT

PROFILE = """\
description = "{description}"
[workload]
model = "no/such-model"
dataset = "none.csv"
eval_size = 1
[[grid]]
max_length = [8, 16]
per_device_train_batch_size = [1, 2, 3]
train_size = [4]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that writes a profile of the user's own, and returns its entry in the list."""
    (tmp_path / "profiles").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "profiles" / "own.toml").write_text(text)
        (found,) = (one for one in list_profiles() if one.name == "own")
        return found

    return write


def test_a_profile_of_the_user_is_listed_beside_those_of_ftbench(own):
    found = own(PROFILE.format(description="What I want. And more."))
    assert (found.cells, found.summary) == (6, "What I want.")
    names = [row[0] for row in profiles_table(list_profiles()).rows]
    assert {"own", "quick", "smoke"} <= set(names)
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("description", "summary"),
    [
        ("Is it 1.5 times as slow? On a CPU it is. No more.", "Is it 1.5 times as slow? On a CPU it is."),
        ("no sentence at all", "no sentence at all"),
        ("", ""),
        ("Ends here! Not there.", "Ends here!"),
    ],
)  # fmt: skip
def test_the_summary_is_the_first_sentence_or_a_question_with_its_answer(own, description, summary):
    assert own(PROFILE.format(description=description)).summary == summary


def test_a_file_that_is_no_profile_is_listed_with_its_reason(own):
    found = own("[tool.other]\nx = 1\n")
    assert found.cells is None
    assert "own.toml" in found.summary
    (row,) = (row for row in profiles_table([found]).rows)
    assert row[1] == row[3] == row[4] == ABSENT
    (data,) = profiles_json([found])
    assert (data["cells"], data["summary"]) == (None, None)
    assert data["error"]


def test_profiles_as_json(own):
    (data,) = profiles_json([own(PROFILE.format(description="One."))])
    assert data["cells"] == 6
    assert (data["model"], data["dataset"]) == ("no/such-model", "none.csv")
    assert (data["task"], data["error"]) == ("text-classification", None)


def test_the_catalogue_as_a_table():
    cards = load_gpus()
    table = gpus_table(list(cards.values()))
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == list(cards)
    t4 = rows["t4"]
    assert float(t4["memory"]) == pytest.approx(cards["t4"].memory_bytes / GIB, abs=0.05)
    assert (t4["bandwidth"], t4["fp32"], t4["fp16"], t4["power"]) == ("320", "8.1", "65", "70")
    assert (t4["tf32"], t4["bf16"]) == (ABSENT, ABSENT)  # Turing has neither
    assert (t4["generation"], t4["capability"]) == ("Turing", "7.5")
    assert rows["a100-40gb"]["bandwidth"] == "1,555"
    assert len(table.numeric) == len(table.columns)


def test_every_generation_has_cards_of_its_capability():
    found = {gpu.generation: gpu.compute_capability[0] for gpu in load_gpus().values()}
    assert found == {
        **{"Pascal": 6, "Volta": 7, "Turing": 7, "Ampere": 8, "Ada": 8, "Hopper": 9},
        "Blackwell": found["Blackwell"],
    }
    assert found["Blackwell"] in (10, 12)


def test_the_catalogue_as_json_has_bytes_and_sources():
    (data,) = (one for one in gpus_json(list(load_gpus().values())) if one["name"] == "t4")
    assert data["memory_bytes"] == 15_843_721_216
    assert data["generation"] == "Turing"
    assert data["memory_source"]
