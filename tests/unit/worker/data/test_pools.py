import json

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import Workload
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.worker.data.pools import load_pools
from ftbench.worker.data.tokenised import read_tokenised, tokenise
from ftbench.worker.recipe.tokenizer import load_tokenizer
from tests.factories import profile, task


def source(dataset, **changes):
    fields = {"model": "m", "dataset": str(dataset), "eval_size": 2}
    return resolve_data(Workload(**(fields | changes)))


def rows(n=20, **columns):
    return {
        "text": [f"document {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
    } | columns


@pytest.fixture
def csv_file(tmp_path):
    Dataset.from_dict(rows()).to_csv(tmp_path / "data.csv")
    return tmp_path / "data.csv"


def test_one_split_gives_two_disjoint_pools(csv_file):
    pools = load_pools(source(csv_file))
    train, held_out = set(pools.train["text"]), set(pools.evaluation["text"])
    assert (len(train), len(held_out), pools.eval_split) == (16, 4, "from-train")
    assert not train & held_out


def test_texts_of_full_length_cannot_be_trained_on():
    with pytest.raises(WorkloadError, match="predictions only") as raised:
        load_pools(source("synthetic:full-length"))
    assert raised.value.where == "workload.dataset"


def test_the_end_of_each_class_is_held_out(csv_file):
    # Of the ten rows of each class, in the order of the file, the last two.
    assert set(load_pools(source(csv_file)).evaluation["text"]) == {
        f"document {i}" for i in (16, 17, 18, 19)
    }


def test_pools_are_shuffled_as_the_recipe_does(csv_file):
    pools = load_pools(source(csv_file))
    again = load_pools(source(csv_file))
    other = load_pools(source(csv_file, shuffle_seed=1))
    assert pools.train["text"] == again.train["text"] != other.train["text"]
    in_order = Dataset.from_dict(
        {"text": [f"document {i}" for i in (*range(0, 16, 2), *range(1, 16, 2))]}
    )
    assert in_order.shuffle(seed=42)["text"] == pools.train["text"]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_files(tmp_path, suffix):
    data = Dataset.from_dict(rows())
    file = tmp_path / f"data.{suffix}"
    {"csv": data.to_csv, "parquet": data.to_parquet}.get(suffix, data.to_json)(file)
    assert len(load_pools(source(file)).train) == 16


def test_a_json_file_that_is_one_list(tmp_path):
    file = tmp_path / "data.json"
    file.write_text(json.dumps([{"text": f"t{i}", "label": i % 2} for i in range(10)]))
    assert len(load_pools(source(file)).train) == 8


def test_a_directory_with_a_train_and_a_test_file(tmp_path):
    Dataset.from_dict(rows(12)).to_csv(tmp_path / "train.csv")
    Dataset.from_dict(rows(6)).to_csv(tmp_path / "test.csv")
    pools = load_pools(source(tmp_path))
    assert (len(pools.train), len(pools.evaluation), pools.eval_split) == (12, 6, "test")


def test_a_saved_data_set(tmp_path):
    splits = {"train": Dataset.from_dict(rows(12)), "validation": Dataset.from_dict(rows(6))}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert load_pools(source(tmp_path / "saved")).eval_split == "validation"
    splits["train"].save_to_disk(tmp_path / "one")
    assert load_pools(source(tmp_path / "one")).eval_split == "from-train"


def test_string_labels_are_numbered_in_order(tmp_path):
    data = rows(label=["b", "a", "c", "b", "a"] * 4)
    Dataset.from_dict(data).to_csv(tmp_path / "d.csv")
    pools = load_pools(source(tmp_path / "d.csv"))
    assert pools.labels == ("a", "b", "c")
    by_text = dict(zip(data["text"], data["label"], strict=True))
    for text, label in zip(pools.train["text"], pools.train["labels"], strict=True):
        assert pools.labels[label] == by_text[text]


def test_numbers_that_do_not_start_at_zero(tmp_path):
    Dataset.from_dict(rows(label=[3, 7] * 10)).to_csv(tmp_path / "d.csv")
    pools = load_pools(source(tmp_path / "d.csv"))
    assert pools.labels == ("3", "7")
    assert set(pools.train["labels"]) == {0, 1}


def test_class_labels_keep_their_names(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict(rows(), features=features).save_to_disk(tmp_path / "d")
    assert load_pools(source(tmp_path / "d")).labels == ("no", "yes")


def test_other_column_names(tmp_path):
    Dataset.from_dict({"review": ["a", "b"] * 10, "stars": [1, 5] * 10}).to_csv(tmp_path / "d.csv")
    pools = load_pools(source(tmp_path / "d.csv", text_column="review", label_column="stars"))
    assert pools.train.column_names == ["text", "labels"]


def test_rows_are_filtered_and_duplicates_dropped(tmp_path):
    data = rows(source=["keep", "keep", "drop", "drop"] * 5)
    data["text"][4] = data["text"][0]
    Dataset.from_dict(data).to_csv(tmp_path / "d.csv")
    pools = load_pools(source(tmp_path / "d.csv", where={"source": "keep"}, drop_duplicates=True))
    kept = [*pools.train["text"], *pools.evaluation["text"]]
    assert len(kept) == len(set(kept)) == 9
    assert "document 2" not in kept


def test_balanced_pools_have_as_many_of_each_class(tmp_path):
    Dataset.from_dict(rows(label=[0] * 15 + [1] * 5)).to_csv(tmp_path / "d.csv")
    pools = load_pools(source(tmp_path / "d.csv", balanced=True))
    for pool in (pools.train, pools.evaluation):
        assert sum(pool["labels"]) * 2 == len(pool)
    assert len(load_pools(source(tmp_path / "d.csv")).train) == 16


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"text_column": "txt"}, "workload.text_column", "no such column"),
        ({"label_column": "labl"}, "workload.label_column", "no such column"),
        ({"train_split": "trian"}, "workload.train_split", "no such split"),
        ({"eval_split": "dev"}, "workload.eval_split", "no such split"),
        ({"where": {"lable": 1}}, "workload.where", "no such column"),
        ({"where": {"label": 5}}, "workload.dataset", "no row is left"),
        ({"where": {"label": "five"}}, "workload.where", "cannot be compared"),
        ({"where": {"label": 1}}, "workload.label_column label", "only one class"),
    ],
)
def test_what_does_not_fit_is_refused(csv_file, changes, where, what):
    with pytest.raises(WorkloadError, match=what) as caught:
        load_pools(source(csv_file, **changes))
    assert caught.value.where == where


def test_a_mistyped_column_gets_the_nearest_name(csv_file):
    with pytest.raises(WorkloadError) as caught:
        load_pools(source(csv_file, text_column="txt"))
    assert caught.value.nearest == "text"


def test_rows_without_text_or_label_are_refused(tmp_path):
    Dataset.from_dict(rows(text=[None, "b"] * 10)).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(WorkloadError, match="10 rows have no text"):
        load_pools(source(tmp_path / "t.parquet"))
    Dataset.from_dict(rows(label=[[0, 1]] * 20)).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(WorkloadError, match="a label must be one value"):
        load_pools(source(tmp_path / "n.parquet"))
    Dataset.from_dict(rows(label=[None, 1] * 10)).to_parquet(tmp_path / "l.parquet")
    with pytest.raises(WorkloadError, match="10 rows have no label"):
        load_pools(source(tmp_path / "l.parquet"))


def test_labels_that_training_does_not_know(tmp_path):
    Dataset.from_dict(rows(12)).to_csv(tmp_path / "train.csv")
    Dataset.from_dict(rows(6, label=[0, 1, 2] * 2)).to_csv(tmp_path / "test.csv")
    with pytest.raises(WorkloadError, match="labels that the training pool does not"):
        load_pools(source(tmp_path))


def test_hidden_labels_are_refused(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    hidden = {"text": ["a", "b"], "label": [-1, -1]}
    splits = {"train": rows(), "test": hidden}
    DatasetDict(
        {name: Dataset.from_dict(data, features=features) for name, data in splits.items()}
    ).save_to_disk(tmp_path / "d")
    with pytest.raises(
        WorkloadError, match="labels that the training pool does not have"
    ) as caught:
        load_pools(source(tmp_path / "d"))
    assert caught.value.got == "-1 (2 rows)"


def test_a_saved_data_set_is_left_as_it_is(tmp_path):
    Dataset.from_dict(rows(40)).save_to_disk(tmp_path / "d")
    before = source(tmp_path / "d")
    files = sorted((tmp_path / "d").iterdir())
    load_pools(source(tmp_path / "d", drop_duplicates=True, where={"label": 1}) and before)
    assert sorted((tmp_path / "d").iterdir()) == files
    (tmp_path / "d" / "cache-1234.arrow").write_text("made by datasets")
    assert source(tmp_path / "d") == before


def test_balanced_holds_for_given_splits_too(tmp_path):
    Dataset.from_dict(rows(12, label=[0] * 9 + [1] * 3)).to_csv(tmp_path / "train.csv")
    Dataset.from_dict(rows(6, label=[0, 0, 0, 0, 1, 1])).to_csv(tmp_path / "test.csv")
    pools = load_pools(source(tmp_path, balanced=True))
    assert (len(pools.train), len(pools.evaluation)) == (6, 4)


@pytest.mark.parametrize("content", ["", "not,a\nvalid", "{"])
def test_broken_files_are_an_error_and_no_traceback(tmp_path, content):
    for name in ("d.json", "d.parquet"):
        (tmp_path / name).write_text(content)
        with pytest.raises(WorkloadError):
            load_pools(source(tmp_path / name))


def test_a_kind_of_file_that_is_not_read(tmp_path):
    (tmp_path / "d.xml").write_text("x")
    with pytest.raises(WorkloadError, match="unsupported kind"):
        load_pools(source(tmp_path / "d.xml"))


def test_the_packaged_reviews_are_the_balanced_rows_without_duplicates():
    pools = load_pools(resolve_data(profile().workload))
    texts = [*pools.train["text"], *pools.evaluation["text"]]
    assert len(texts) == len(set(texts)) <= 25000 - 96
    assert sum(pools.train["labels"]) * 2 == len(pools.train)
    assert sum(pools.evaluation["labels"]) * 2 == len(pools.evaluation)


@pytest.fixture
def tokenizer():
    return load_tokenizer(resolve_model(profile().workload))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def tokenised(pool, tokenizer, **changes):
    options = {
        "max_length": 8,
        "padding": "max_length",
        "identity": {"data": "x"},
        "tokenizer": tokenizer,
        "task": task(),
    }
    count = changes.pop("count", 10)
    return tokenise(pool, count, **(options | changes))


def test_padding_to_max_length(csv_file, tokenizer):
    file = tokenised(load_pools(source(csv_file)).train, tokenizer)
    data = read_tokenised(str(file), 4)
    assert data.column_names == ["labels", "input_ids", "token_type_ids", "attention_mask"]
    assert [tuple(row["input_ids"].shape) for row in data] == [(8,)] * 4


def test_joined_texts_fill_rows_of_one_length(csv_file, tokenizer):
    pool = load_pools(source(csv_file)).train
    options = {"task": task("causal-lm"), "packing": "concatenate", "max_length": 5}
    data = read_tokenised(str(tokenised(pool, tokenizer, count=4, **options)), 4)
    assert [tuple(row["input_ids"].shape) for row in data] == [(5,)] * 4
    single = task("causal-lm").encode(tokenizer, pool[:], max_length=100, pad=False)
    joined = [token for ids in single["input_ids"] for token in ids]
    assert [int(token) for row in data for token in row["input_ids"]] == joined[:20]
    with pytest.raises(WorkloadError) as caught:
        tokenised(pool, tokenizer, count=10_000, **options)
    assert caught.value.where == "grid.train_size"
    assert caught.value.expected == f"at most {len(joined) // 5}"
    # Evaluation examples are never joined.
    own = tokenised(pool, tokenizer, evaluation=True, **options)
    assert len(read_tokenised(str(own), 10)) == 10


def test_padding_to_the_longest_is_left_to_the_collator(csv_file, tokenizer):
    file = tokenised(load_pools(source(csv_file)).train, tokenizer, padding="longest", max_length=3)
    assert {len(row["input_ids"]) for row in read_tokenised(str(file), 4)} == {3}


def test_a_smaller_subset_is_the_start_of_a_larger_one(csv_file, tokenizer):
    pool = load_pools(source(csv_file)).train
    small = read_tokenised(str(tokenised(pool, tokenizer, count=5)), 5)
    large = read_tokenised(str(tokenised(pool, tokenizer, count=10)), 5)
    assert small["input_ids"][:].tolist() == large["input_ids"][:].tolist()


def test_tokenising_happens_once_for_the_same_content(csv_file, tokenizer):
    pool = load_pools(source(csv_file)).train
    file = tokenised(pool, tokenizer)
    written = file.stat().st_mtime_ns
    assert tokenised(pool, tokenizer) == file
    assert file.stat().st_mtime_ns == written
    others = [{"max_length": 9}, {"padding": "longest"}, {"identity": {"data": "y"}}, {"count": 9}]
    assert len({tokenised(pool, tokenizer, **other) for other in others} | {file}) == 5


def test_a_cache_that_cannot_be_written_is_told(csv_file, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", csv_file / "below a file")
    with pytest.raises(WorkloadError, match="cannot be written") as caught:
        tokenised(load_pools(source(csv_file)).train, tokenizer)
    assert caught.value.where == "HF_DATASETS_CACHE"


# Pairs of texts, and numbers to learn


PAIRED = {"text_column": ("first", "second")}


def paired_csv(tmp_path, rows):
    file = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=["first", "second", "label"]).to_csv(file, index=False)
    return file


def pairs(count=40):
    return [(f"first {n}", f"second {n} longer", n % 2) for n in range(count)]


def test_a_pair_has_two_columns_of_text(tmp_path):
    pools = load_pools(source(paired_csv(tmp_path, pairs()), **PAIRED))
    assert pools.train.column_names == ["text", "text_pair", "labels"]
    for row in pools.train:
        assert row["text"].split()[1] == row["text_pair"].split()[1]


def test_a_pair_is_a_duplicate_only_if_both_texts_are(tmp_path):
    rows = [("a", "b", 0), ("a", "c", 1), ("a", "b", 1), ("d", "b", 0)] * 5
    found = load_pools(source(paired_csv(tmp_path, rows), drop_duplicates=True, **PAIRED))
    texts = {(r["text"], r["text_pair"]) for pool in (found.train, found.evaluation) for r in pool}
    assert texts == {("a", "b"), ("a", "c"), ("d", "b")}


def test_the_missing_column_of_a_pair_is_named(tmp_path):
    of = source(paired_csv(tmp_path, pairs()), text_column=("first", "secnd"))
    with pytest.raises(WorkloadError, match="no such column") as caught:
        load_pools(of)
    assert (caught.value.where, caught.value.got) == ("workload.text_column", "secnd")


def test_a_pair_that_is_too_long_loses_tokens_of_its_longer_text(tmp_path, tokenizer):
    longest = ("one", "two three four five six seven eight nine ten eleven", 0)
    pool = load_pools(source(paired_csv(tmp_path, [*pairs(), longest] * 2), **PAIRED)).train
    file = tokenised(pool, tokenizer, count=len(pool), max_length=10)
    found = [tokenizer.convert_ids_to_tokens(i) for i in Dataset.from_file(str(file))["input_ids"]]
    long = [words for words in found if words[1] == "one"]
    assert long
    for words in long:
        assert words == [
            "[CLS]",
            "one",
            "[SEP]",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "[SEP]",
        ]


def numbers_csv(tmp_path, labels):
    file = tmp_path / "numbers.csv"
    rows = {"text": [f"text {n}" for n in range(len(labels))], "label": labels}
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def test_a_regression_s_pools_have_numbers_over_the_same_range(tmp_path):
    """The file is sorted by its labels; its last fifth alone would be all high ones."""
    file = numbers_csv(tmp_path, [n / 100 for n in range(200)])
    pools = load_pools(source(file, task="text-regression"))
    assert pools.labels == ()
    assert (len(pools.train), len(pools.evaluation)) == (160, 40)
    train, held_out = (np.array(pool["labels"]) for pool in (pools.train, pools.evaluation))
    assert abs(train.mean() - held_out.mean()) < 0.15
    assert not set(train) & set(held_out)


def test_words_are_no_numbers(tmp_path):
    with pytest.raises(WorkloadError, match="a regression needs labels that are numbers"):
        load_pools(source(numbers_csv(tmp_path, ["good", "bad"] * 10), task="text-regression"))
