"""`ftbench init` before and beside its workers: places, options, and what is refused without a guess."""

import pytest

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.cli import first_look
from ftbench.cli.init import init
from ftbench.plan.profile_file import load_profile
from ftbench.records.first_look import ColumnFacts, DataColumns, ModelFacts, StepTime, TextFacts
from ftbench.records.messages import ClassCount
from ftbench.records.token_facts import USUAL_LENGTHS, token_facts
from ftbench.verbs.starter.columns import Given, Roles, guess

MODEL = ModelFacts(model_type="bert", decoder=False, encoder_decoder=False)


def column(name, kind="text", **changes):
    facts = {"rows": 600, "distinct": 600, "rarest": 1, "words": 20.0, "letters": 90.0}
    return ColumnFacts(name=name, kind=kind, **facts | changes)


LABEL = column("stars", "whole", distinct=5, rarest=100, words=0.0)
TWO_LABELS = (column("text"), column("topic", distinct=4, words=1.0), LABEL)
TEXTS = TextFacts(
    train_pool=480,
    eval_pool=120,
    eval_split="from-train",
    classes=tuple(
        ClassCount(name=str(n), train_pool=96, eval_pool=24, evaluated=24) for n in range(5)
    ),
    tokens=token_facts([20, 90], USUAL_LENGTHS, of=480),
    device="a processor",
    batch=8,
    times=tuple(StepTime(max_length=n, step_s=0.01, forward_s=0.005) for n in USUAL_LENGTHS),
)


@pytest.fixture
def looked_at(tmp_path, monkeypatch):
    """Return a function that plants what the workers answer; ends in a folder with a file of data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,stars\nx,1\n")
    (tmp_path / "model").mkdir()

    def plant(*columns, texts=TEXTS, no_header=None):
        found = DataColumns(
            columns=columns,
            splits=("train",),
            train_split="train",
            model=MODEL,
            no_header=no_header,
        )
        asked = []

        def answer(look, settings):
            asked.append(dict(settings))
            if isinstance(texts, list):
                answered = texts.pop(0)
                if isinstance(answered, Exception):
                    raise answered
                return answered
            return texts

        monkeypatch.setattr(first_look.Look, "_columns", lambda look: found)
        monkeypatch.setattr(first_look.Look, "_texts", answer)
        return asked

    return plant


def run(data="reviews.csv", **options):
    init(data, model="offline:minilm-l6", minutes=5.0, **options)


def test_a_profile_is_written_beside_where_it_was_asked_for(looked_at, tmp_path, capsys):
    looked_at(column("text"), LABEL)
    run()
    made = load_profile(str(tmp_path / "reviews.toml"))
    assert (made.workload.text_column, made.workload.label_column) == ("text", "stars")
    assert made.workload.eval_size == 100
    shown = capsys.readouterr().out
    assert "ftbench run reviews.toml" in shown
    assert "20.0%" in shown


def test_a_file_that_is_there_is_never_overwritten_without_force(looked_at, tmp_path):
    looked_at(column("text"), LABEL)
    file = tmp_path / "reviews.toml"
    file.write_text("mine")
    with pytest.raises(ProfileError, match="there already"):
        run()
    assert file.read_text() == "mine"
    run(force=True)
    assert file.read_text() != "mine"


@pytest.mark.parametrize("where", [".", "sub", "../data"])
def test_a_profile_may_not_become_part_of_the_data(looked_at, tmp_path, monkeypatch, where):
    looked_at(column("text"), LABEL)
    (tmp_path / "data" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ProfileError, match="part of the data"):
        run(".", out=__import__("pathlib").Path(where) / "x.toml")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("a/reviews.csv.gz", "reviews"),
        ("my data (1).jsonl", "my-data-1"),
        ("folder/", "folder"),
        ("org/name", "name"),
        ("*.csv", "profile"),
        ("~/.csv", "profile"),
    ],
)
def test_the_name_of_the_profile_is_that_of_the_data(data, name):
    from ftbench.cli.init import _name_of

    assert _name_of(data) == name


def test_what_two_columns_fit_is_refused_with_the_options_if_nobody_can_be_asked(looked_at):
    asked = looked_at(*TWO_LABELS)
    with pytest.raises(ProfileError) as error:
        run(yes=True)
    assert error.value.where == "--label"
    assert "stars" in error.value.expected
    assert "topic" in error.value.expected
    assert asked == []
    run(label="topic")
    assert asked[0]["label_column"] == "topic"


SPLIT = column("split", distinct=2, rarest=300, words=1.0)


def test_a_doubtful_label_is_refused_with_both_readings_if_nobody_can_be_asked(looked_at):
    looked_at(column("text"), SPLIT)
    with pytest.raises(ProfileError) as error:
        run(yes=True)
    assert error.value.where == "--label"
    assert "--label split" in error.value.hint
    assert "--task masked-lm" in error.value.hint


@pytest.mark.parametrize(
    ("answer", "task"), [("none", "masked-lm"), ("split", "text-classification")]
)
def test_a_doubtful_label_may_be_answered_with_none(monkeypatch, answer, task):
    found = DataColumns(
        columns=(column("text"), SPLIT), splits=("train",), train_split="train", model=MODEL
    )
    monkeypatch.setattr(first_look.typer, "prompt", lambda *_, **__: answer)
    unclear = guess(found, Given())
    assert guess(found, first_look._answered(unclear, Given())).task == task


def test_another_column_named_when_asked_leaves_the_task_that_was_given(monkeypatch):
    answers = iter(["summary", "stars"])
    monkeypatch.setattr(first_look.typer, "prompt", lambda *_, **__: next(answers))
    roles = first_look._confirmed(
        Roles("text-regression", ("text",), "stars"),
        DataColumns(
            columns=(column("text"), column("summary"), LABEL),
            splits=("train",),
            train_split="train",
            model=MODEL,
        ),
        Given(task="text-regression"),
    )
    assert roles == Roles("text-regression", ("summary",), "stars")


def test_a_file_without_names_of_columns_is_refused(looked_at):
    looked_at(column("text"), LABEL, no_header="the number 1")
    with pytest.raises(WorkloadError, match="the number 1"):
        run()
    run(text=["text"], label="stars")  # its user says that they are names


def test_rows_without_a_text_or_a_label_are_left_out(looked_at, tmp_path):
    asked = looked_at(column("text", missing=3), LABEL.model_copy(update={"missing": 2}))
    run()
    assert asked[0]["drop_rows_without_text"] is asked[0]["drop_rows_without_label"] is True
    made = load_profile(str(tmp_path / "reviews.toml")).workload
    assert made.drop_rows_without_text
    assert made.drop_rows_without_label


@pytest.mark.parametrize("seen", [0, 4])
def test_duplicates_are_left_out_if_there_are_any(looked_at, tmp_path, seen):
    looked_at(column("text"), LABEL, texts=TEXTS.model_copy(update={"duplicates": seen}))
    run()
    made = load_profile(str(tmp_path / "reviews.toml")).workload
    assert made.drop_duplicates is (seen > 0)


def test_an_evaluation_split_that_hides_its_labels_is_done_without(looked_at, tmp_path):
    hidden = WorkloadError("labels are hidden", hint='eval_split = "from-train" holds out a part')
    asked = looked_at(column("text"), LABEL, texts=[hidden, TEXTS])
    run()
    assert [one.get("eval_split") for one in asked] == [None, "from-train"]
    made = load_profile(str(tmp_path / "reviews.toml")).workload
    assert made.eval_split == "from-train"


def test_settings_that_are_given(looked_at, tmp_path):
    asked = looked_at(column("text"), LABEL)
    run(overrides=["workload.where={lang='en'}", "workload.missing_weights=random"])
    assert asked[0]["where"] == {"lang": "en"}
    made = load_profile(str(tmp_path / "reviews.toml")).workload
    assert made.where == {"lang": "en"}
    assert made.missing_weights == "random"


@pytest.mark.parametrize("key", ["run.device=cpu", "workload.label_column=x", "workload=1"])
def test_settings_that_are_none_of_the_workload_s(looked_at, key):
    looked_at(column("text"), LABEL)
    with pytest.raises(ProfileError) as error:
        run(overrides=[key])
    assert error.value.where == "--set"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"task": "text-clasification"}, "--task"),
        ({"text": ["a", "b", "c"]}, "--text"),
        ({"text": ["text", "text"]}, "--text"),
        ({"text": ["none"]}, "--text"),
        ({"label": "none"}, "--label"),
    ],
)
def test_options_that_cannot_be(looked_at, options, where):
    looked_at(column("text"), LABEL)
    with pytest.raises(ProfileError) as error:
        run(**options)
    assert error.value.where == where


def test_a_grid_that_takes_longer_than_it_may_is_the_smallest(looked_at, tmp_path, capsys):
    slow = tuple(StepTime(max_length=n, step_s=n, forward_s=n) for n in USUAL_LENGTHS)
    looked_at(column("text"), LABEL, texts=TEXTS.model_copy(update={"times": slow}))
    run()
    made = load_profile(str(tmp_path / "reviews.toml"))
    assert len(made.grid) == 1
    assert "more than --minutes 5" in capsys.readouterr().out


def test_a_hint_at_a_key_of_the_profile_names_the_option_that_has_it():
    hint = 'encoding = "cp1252", under [workload]'
    with pytest.raises(WorkloadError) as error, first_look._told_by_set():
        raise WorkloadError("cannot be read", hint=hint)
    assert error.value.hint.startswith(hint)
    assert "--set workload." in error.value.hint
