"""Columns of files as strangers have them, described by the worker and guessed from its answer."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.plan.profile import Workload
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.first_look import ColumnsRequest, DataColumns
from ftbench.verbs.starter.columns import Given, Roles, Unclear, guess
from ftbench.worker.first_look import columns
from tests.unit.worker.data.sources import written

WORDS = "a film that was {} and went on for much too long, as number {} of them did"


def look(path, *, model_type="bert", train_split=None) -> DataColumns:
    workload = Workload(
        model=f"architecture:{model_type}",
        weights="random",
        tokenizer="offline:minilm-l6",
        dataset=str(path),
        eval_size=1,
    )
    request = ColumnsRequest(
        data=resolve_data(workload), model=resolve_model(workload), train_split=train_split
    )
    return DataColumns.model_validate(
        columns.main(request.model_dump(mode="json"), lambda progress: None)
    )


def facts(path, name, **options):
    (found,) = (one for one in look(path, **options).columns if one.name == name)
    return found


def guessed(path, given=Given(), **options):  # noqa: B008 - frozen
    return guess(look(path, **options), given)


def table(*columns, rows=40, separator=","):
    """Return a CSV file whose columns are a name and a function of the row's number."""
    lines = [separator.join(name for name, _ in columns)]
    lines += [separator.join(str(of(n)) for _, of in columns) for n in range(rows)]
    return "\n".join([*lines, ""])


def text(n):
    return f'"{WORDS.format("good" if n % 2 else "bad", n)}"'


def label(n):
    return ("no", "yes")[n % 2]


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


REVIEWS = table(("text", text), ("label", label))
CLASSIFIED = Roles("text-classification", ("text",), "label")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", REVIEWS),
        ("mark.csv", b"\xef\xbb\xbf" + REVIEWS.encode()),
        ("utf16.csv", REVIEWS.encode("utf-16")),
        ("windows.csv", REVIEWS.replace("\n", "\r\n")),
        ("packed.csv.gz", gzip.compress(REVIEWS.encode())),
        ("semicolons.csv", table(("text", text), ("label", label), separator=";")),
        ("tabs.tsv", table(("text", text), ("label", label), separator="\t")),
        ("quoted.csv", REVIEWS.replace("went on", 'went ""on""\nand, really, on;')),
        ("unicode.csv", REVIEWS.replace("film", "映画 🎬 Füllhörner")),
        ("lines.jsonl", json_lines({"text": text(n), "label": label(n)} for n in range(40))),
        ("list.json", json.dumps([{"text": text(n), "label": label(n)} for n in range(40)])),
    ],
)
def test_the_same_table_in_many_forms(tmp_path, name, content):
    assert guessed(written(tmp_path / name, content)) == CLASSIFIED


def test_parquet(tmp_path):
    rows = {"text": [text(n) for n in range(40)], "label": [label(n) for n in range(40)]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    assert guessed(tmp_path / "t.parquet") == CLASSIFIED


def test_folders_of_texts_for_each_label(tmp_path):
    for n in range(6):
        written(tmp_path / "data" / "train" / label(n) / f"{n}.txt", WORDS)
    assert guessed(tmp_path / "data") == CLASSIFIED


def test_a_directory_of_splits(tmp_path):
    for name in ("train", "test"):
        written(tmp_path / "data" / "nested" / f"{name}.csv", REVIEWS)
    found = look(tmp_path / "data")
    assert (found.train_split, set(found.splits)) == ("train", {"train", "test"})
    assert guess(found, Given()) == CLASSIFIED


@pytest.mark.parametrize(("asked", "found"), [(None, None), ("validation", "validation")])
def test_splits_of_which_none_is_called_train(tmp_path, asked, found):
    for name in ("validation", "test"):
        written(tmp_path / "data" / f"{name}.csv", REVIEWS)
    if found is None:
        with pytest.raises(WorkloadError, match="none is called train") as error:
            look(tmp_path / "data")
        assert error.value.where == "--train-split"
        return
    assert look(tmp_path / "data", train_split=asked).train_split == found


def test_an_id_is_no_label_and_a_label_may_be_a_number(tmp_path):
    file = written(
        tmp_path / "t.csv",
        table(
            ("label_id", lambda n: 1000 + n),
            ("review", text),
            ("group_id", lambda n: n % 3),
            ("stars", lambda n: n % 5 + 1),
        ),
    )
    assert guessed(file) == Roles("text-classification", ("review",), "stars")
    assert facts(file, "stars").kind == "whole"
    assert (facts(file, "stars").distinct, facts(file, "stars").rarest) == (5, 8)


def test_numbers_with_fractions_are_a_regression(tmp_path):
    file = written(tmp_path / "t.csv", table(("text", text), ("target", lambda n: n / 7)))
    assert guessed(file) == Roles("text-regression", ("text",), "target")
    only = written(tmp_path / "u.csv", table(("essay", text), ("grade", lambda n: n / 7)))
    assert guessed(only) == Roles("text-regression", ("essay",), "grade")


def test_numbers_of_classes_beside_missing_ones_are_whole(tmp_path):
    rows = [None if n % 7 == 0 else float(n % 3) for n in range(40)]
    made = pa.table({"text": [text(n) for n in range(40)], "label": rows})
    pq.write_table(made, tmp_path / "t.parquet")
    found = facts(tmp_path / "t.parquet", "label")
    assert (found.kind, found.missing, found.distinct) == ("whole", 6, 3)


OTHERS = {
    "split": lambda n: ("train", "test")[n % 2],
    "date": lambda n: f"2024-0{n % 4 + 1}",
    "created_at": lambda n: f"2024-0{n % 4 + 1}",
    "lang": lambda n: ("en", "de")[n % 2],
    "year": lambda n: 2000 + n % 4,
    "userId": lambda n: f"u{n % 4}",
    "fold": lambda n: n % 5,
    "timestamp": lambda n: n / 7,
    "weight": lambda n: n / 7,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_column_that_need_not_be_a_label_is_asked_about(tmp_path, name):
    file = written(tmp_path / "t.csv", table(("text", text), (name, OTHERS[name])))
    alone = Roles("masked-lm", ("text",))
    assert guessed(file) == Unclear("label", "--label", (name,), otherwise=alone)
    assert guessed(file, Given(task="masked-lm")) == alone
    assert guessed(file, Given(label=name)).label == name


@pytest.mark.parametrize("name", OTHERS)
def test_beside_a_label_it_is_no_label(tmp_path, name):
    for called in ("label", "mood"):
        of = (("text", text), (name, OTHERS[name]), (called, label))
        file = written(tmp_path / f"{called}.csv", table(*of))
        assert guessed(file) == Roles("text-classification", ("text",), called)


@pytest.mark.parametrize("name", ["mood", "user_intent", "q7"])
def test_values_that_are_classes_are_labels_whatever_they_are_called(tmp_path, name):
    file = written(tmp_path / "t.csv", table(("text", text), (name, lambda n: "abcde"[n % 5])))
    assert guessed(file) == Roles("text-classification", ("text",), name)


def test_a_value_that_occurs_once_makes_classes_doubtful(tmp_path):
    file = written(
        tmp_path / "t.csv",
        table(("text", text), ("mood", lambda n: "c" if n == 7 else "ab"[n % 2])),
    )
    assert guessed(file).options == ("mood",)


def test_numbers_are_measured_if_the_task_says_so(tmp_path):
    file = written(tmp_path / "t.csv", table(("text", text), ("weight", lambda n: n / 7)))
    found = guessed(file, Given(task="text-regression"))
    assert found == Roles("text-regression", ("text",), "weight")


def test_one_class_is_refused_and_another_column_is_named(tmp_path):
    file = written(tmp_path / "t.csv", table(("text", text), ("label", lambda n: "same")))
    with pytest.raises(ProfileError, match="only one value") as error:
        guessed(file)
    assert "--label" in error.value.hint


def test_two_possible_labels_are_never_guessed(tmp_path):
    file = written(
        tmp_path / "t.csv",
        table(("text", text), ("sentiment", label), ("topic", lambda n: "abc"[n % 3])),
    )
    found = guessed(file)
    assert found == Unclear("label", "--label", ("sentiment", "topic"))
    assert guessed(file, Given(label="topic")) == Roles("text-classification", ("text",), "topic")


def test_a_column_called_label_is_the_label_beside_others(tmp_path):
    file = written(tmp_path / "t.csv", table(("text", text), ("topic", label), ("Label", label)))
    assert guessed(file).label == "Label"


def test_two_texts_of_a_length_are_never_guessed(tmp_path):
    file = written(tmp_path / "t.csv", table(("left", text), ("right", text), ("label", label)))
    assert guessed(file) == Unclear("text", "--text", ("left", "right"))
    given = Given(text=("left", "right"))
    assert guessed(file, given) == Roles("text-classification", ("left", "right"), "label")


def test_a_title_beside_a_much_longer_body(tmp_path):
    file = written(
        tmp_path / "t.csv",
        table(("title", lambda n: f"number {n} again"), ("body", text), ("label", label)),
    )
    assert guessed(file).text == ("body",)


def test_empty_texts_are_counted(tmp_path):
    file = written(
        tmp_path / "t.csv",
        table(("text", lambda n: text(n) if n % 10 else '"  "'), ("label", label)),
    )
    assert facts(file, "text").missing == 4
    assert guessed(file) == CLASSIFIED


def test_one_row(tmp_path):
    file = written(tmp_path / "t.csv", table(("text", text), ("label", label), rows=1))
    with pytest.raises(ProfileError, match="only one value"):
        guessed(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a film that was good and went on for ever,1\nanother,0\n", "a text of 10 words"),
        ("good,1\nbad,0\n", "the number 1"),
        (table(("yes", lambda n: ("yes", "no")[n % 2]), ("it is", text)), "also a value"),
    ],
)
def test_a_file_without_names_of_columns_is_noticed(tmp_path, content, said):
    assert re.search(said, look(written(tmp_path / "t.csv", content)).no_header)


def test_names_that_are_numbers_in_order_are_those_of_pandas(tmp_path):
    file = written(tmp_path / "t.csv", table(("0", text), ("1", label)))
    assert look(file).no_header is None
    assert guessed(file) == Roles("text-classification", ("0",), "1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"),
        ("t.parquet", b"not parquet"),
        ("t.json", b"{not json"),
        ("t.csv", b""),
        ("t.jsonl", b""),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content):
    with pytest.raises(WorkloadError):
        guessed(written(tmp_path / name, content))


def test_a_column_of_two_types_is_named_and_the_others_are_used(tmp_path):
    rows = [{"text": text(n), "label": label(n), "more": n if n % 2 else "x"} for n in range(40)]
    file = written(tmp_path / "t.jsonl", json_lines(rows))
    assert facts(file, "more").refused
    assert guessed(file) == CLASSIFIED
    with pytest.raises(ProfileError, match="cannot be read"):
        guessed(file, Given(label="more"))


def test_a_column_that_is_not_there(tmp_path):
    file = written(tmp_path / "t.csv", REVIEWS)
    with pytest.raises(ProfileError, match="no such column") as error:
        guessed(file, Given(text=("txt",)))
    assert (error.value.where, error.value.nearest) == ("--text", "text")


def test_prompts_with_completions(tmp_path):
    rows = [{"prompt": text(n), "completion": f"{text(n)} done"} for n in range(40)]
    file = written(tmp_path / "t.jsonl", json_lines(rows))
    answered = Roles("causal-lm", ("prompt",), completion="completion")
    assert guessed(file, model_type="llama") == answered
    assert guessed(file, model_type="t5").task == "seq2seq-lm"


def test_an_answer_that_is_a_class_is_a_label(tmp_path):
    file = written(tmp_path / "t.csv", table(("question", text), ("answer", label)))
    assert guessed(file) == Roles("text-classification", ("question",), "answer")


def test_answers_with_labels_may_be_completions_or_pairs_of_texts(tmp_path):
    file = written(
        tmp_path / "t.csv", table(("question", text), ("answer", text), ("label", lambda n: n % 2))
    )
    completed = Roles("causal-lm", ("question",), completion="answer")
    assert guessed(file) == Unclear("label", "--label", ("label",), otherwise=completed)
    pair = Roles("text-classification", ("question", "answer"), "label")
    assert guessed(file, Given(label="label")) == pair
    assert guessed(file, Given(task="text-classification")) == pair
    assert guessed(file, Given(task="causal-lm")) == completed
    assert guessed(file, Given(completion="answer", text=("question",))) == completed


@pytest.mark.parametrize("names", [("input", "target"), ("instruction", "response", "category")])
def test_what_is_said_of_a_prompt_is_no_label(tmp_path, names):
    rows = table(*((name, text if n < 2 else label) for n, name in enumerate(names)))
    found = guessed(written(tmp_path / "t.csv", rows))
    assert found == Roles("causal-lm", names[:1], completion=names[1])


def test_conversations(tmp_path):
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    file = written(tmp_path / "t.jsonl", json_lines({"messages": said} for _ in range(5)))
    assert guessed(file, model_type="llama") == Roles("causal-lm", messages="messages")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("tokens", "ner_tags"), "ner_tags"),
        (("words", "pos_tags", "chunk_tags", "ner_tags"), "ner_tags"),
        (("tokens", "pos_tags", "chunk_tags"), Unclear("tags", "--label", ("pos_tags", "chunk_tags"))),
    ],
)  # fmt: skip
def test_words_with_tags(tmp_path, names, expected):
    words, *tags = names
    rows = [
        {words: [f"w{n}", f"v{n}", "x"], **{tag: ["B", "O", "O"] for tag in tags}}
        for n in range(40)
    ]
    found = guessed(written(tmp_path / "t.jsonl", json_lines(rows)))
    if isinstance(expected, str):
        expected = Roles("token-classification", (words,), expected)
    assert found == expected


def test_words_with_numbers_as_tags(tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": [0, n % 2]} for n in range(5)]
    found = guessed(written(tmp_path / "t.jsonl", json_lines(rows)))
    assert found == Roles("token-classification", ("tokens",), "ner_tags")


@pytest.mark.parametrize("pair", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_pairs_of_texts(tmp_path, pair):
    file = written(tmp_path / "t.csv", table((pair[0], text), (pair[1], text), ("label", label)))
    assert guessed(file) == Roles("text-classification", pair, "label")


@pytest.mark.parametrize(
    ("model_type", "task"), [("llama", "causal-lm"), ("gpt2", "causal-lm"), ("bert", "masked-lm")]
)
def test_texts_without_labels_are_for_language_models(tmp_path, model_type, task):
    file = written(tmp_path / "t.csv", table(("text", text)))
    assert guessed(file, model_type=model_type) == Roles(task, ("text",))


def test_a_task_that_is_given(tmp_path):
    file = written(tmp_path / "t.csv", REVIEWS)
    assert guessed(file, Given(task="masked-lm")) == Roles("masked-lm", ("text",))
    stars = written(tmp_path / "u.csv", table(("text", text), ("label", lambda n: n % 5)))
    measured = Roles("text-regression", ("text",), "label")
    assert guessed(stars, Given(task="text-regression")) == measured
    unlabelled = written(tmp_path / "v.csv", table(("text", text)))
    found = guessed(unlabelled, Given(task="text-classification"))
    assert (found.role, found.option) == ("label", "--label")
