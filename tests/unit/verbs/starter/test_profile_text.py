import tomllib

import pytest

from ftbench.plan.profile_file import build_profile
from ftbench.records.messages import ClassCount
from ftbench.verbs.starter.first_grid import grids
from ftbench.verbs.starter.profile_text import Starter, profile_data, profile_text
from tests.unit.verbs.starter.test_first_grid import facts

WORKLOAD = {
    "task": "text-classification",
    "text_column": "review",
    "label_column": "stars",
    "model": "offline:minilm-l6",
    "dataset": "reviews.csv",
}
EVIL = 'x"\n[run]\ntimeout_s = 1 # \x07\x7f'


def starter(workload=WORKLOAD, **changes):
    known = facts(**changes)
    return Starter(workload, known, next(iter(grids(known))), cells=9, seconds=60.0)


def classes(*names):
    return tuple(ClassCount(name=n, train_pool=30, eval_pool=10, evaluated=10) for n in names)


@pytest.mark.parametrize("task", ["text-classification", "causal-lm"])
def test_the_file_says_what_the_data_of_the_profile_are(task):
    made = starter({**WORKLOAD, "task": task})
    read = tomllib.loads(profile_text(made, command="ftbench init reviews.csv"))
    assert read == profile_data(made.workload, made.grid)
    built = build_profile({**read, "name": "reviews"}, where="test")
    assert built.workload.eval_size == 100
    assert len(built.grid) == 2


@pytest.mark.parametrize("place", ["dataset", "text_column", "label_column"])
def test_no_name_of_a_file_or_a_column_ends_its_line(place):
    made = starter({**WORKLOAD, place: EVIL})
    read = tomllib.loads(profile_text(made, command=f"ftbench init {EVIL}"))
    assert read["workload"][place] == EVIL
    assert read["run"] == {"cpu_tensors": False}


def test_nor_does_the_name_of_a_class_or_of_a_device():
    made = starter(classes=classes(EVIL, "b"), device=EVIL)
    read = tomllib.loads(profile_text(made, command="ftbench init reviews.csv"))
    assert read == profile_data(made.workload, made.grid)


def test_nor_does_the_name_of_an_evaluation_split():
    made = starter(eval_split=EVIL)
    read = tomllib.loads(profile_text(made, command="ftbench init reviews.csv"))
    assert read == profile_data(made.workload, made.grid)


def test_what_was_found_stands_beside_the_settings():
    workload = {**WORKLOAD, "drop_duplicates": True, "drop_rows_without_text": True}
    made = starter(
        workload,
        classes=classes("good", "bad", "so"),
        duplicates=7,
        contradictions=2,
        left_out={"without a text": 5},
    )
    lines = profile_text(made, command="c").splitlines()

    def comment(key):
        (line,) = (line for line in lines if line.startswith(f"{key} ="))
        return line.partition(" # ")[2]

    assert "3 classes" in comment("label_column")
    assert '"good" 33%' in comment("label_column")
    assert "7 texts" in comment("drop_duplicates")
    assert "2 with another" in comment("drop_duplicates")
    assert "5 rows" in comment("drop_rows_without_text")
    assert "120" in comment("eval_size")


def test_the_share_of_texts_cut_and_of_padding_is_told_for_each_length():
    text = profile_text(starter(lengths=(10,) * 50 + (100,) * 50), command="c")
    rows = [line.strip("# ").split() for line in text.splitlines() if line.startswith("#   ")]
    table = {row[0]: row[1:] for row in rows[1:]}
    assert table["64"] == ["50%", "42%"]  # (10 + 64) / 128 are text
    assert table["128"] == ["0%", "57%"]  # (10 + 100) / 256
