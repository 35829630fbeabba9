"""The files of a split: all of them in the revision, none from a cache, each in its split."""

import json
import os
import types

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import DataSource, Source
from ftbench.worker.data import find_splits as module
from ftbench.worker.data.pools import load_pools
from tests.factories import data_source
from tests.unit.worker.data.sources import csv_text, examples_of, pools_of, source, written

LABELS = [0, 1] * 10
TWO = "---\nconfigs:\n- config_name: a\n  data_files: a.csv\n- config_name: b\n  data_files: b.csv\n---\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl", "folder/train.csv"])
def test_another_content_under_the_same_time_is_another_text(tmp_path, name):
    """The caches of the library datasets go by name and time, which `cp -p` and `rsync -t` keep."""
    file = tmp_path / name
    of = tmp_path / name.split("/")[0]

    def texts(word):
        if name.endswith("jsonl"):
            rows = [json.dumps({"text": f"{word} {n}", "label": n % 2}) for n in range(20)]
            written(file, "\n".join(rows))
        else:
            written(file, csv_text(LABELS, word + " {}", "\t" if "tsv" in name else ","))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        return set(examples_of(pools_of(of)))

    assert "first 3" in texts("first")
    assert "later 3" in texts("later")


def test_files_that_change_after_they_were_hashed_are_refused(tmp_path):
    of = source(written(tmp_path / "d.csv", csv_text(LABELS)))
    written(tmp_path / "d.csv", csv_text(LABELS, "other {}"))
    with pytest.raises(WorkloadError, match="changed after the cells were named"):
        load_pools(of)


@pytest.mark.parametrize(
    "path", ["../outside.csv", "https://host/outside.csv", "{}/outside.csv", "link/outside.csv"]
)
def test_a_directory_may_not_send_its_reader_outside(tmp_path, path):
    """Not by a name, and not through a link to a directory."""
    written(tmp_path / "outside.csv", csv_text(LABELS))
    written(tmp_path / "elsewhere/outside.csv", csv_text(LABELS))
    written(tmp_path / "ds/inside.csv", csv_text(LABELS))
    (tmp_path / "ds/link").symlink_to(tmp_path / "elsewhere")
    entry = f"  data_files:\n  - split: train\n    path: {path.format(tmp_path)}\n"
    written(tmp_path / "ds/README.md", f"---\nconfigs:\n- config_name: default\n{entry}---\n")
    remote = path.startswith("https")  # which the library asks for itself, without a network
    with pytest.raises(WorkloadError, match="cannot be loaded" if remote else "outside of its"):
        pools_of(tmp_path / "ds")


def test_a_link_to_a_file_is_read_and_its_content_hashed(tmp_path):
    """As in the folders of a hub's cache, where every file is a link."""
    for file in ("train", "test"):
        written(tmp_path / f"blobs/{file}", csv_text(LABELS, file + " {}"))
        (tmp_path / "ds").mkdir(exist_ok=True)
        (tmp_path / f"ds/{file}.csv").symlink_to(tmp_path / f"blobs/{file}")
    (tmp_path / "other").symlink_to(tmp_path / "ds")
    pools = pools_of(tmp_path / "other")
    assert (len(pools.train), len(pools.evaluation), pools.eval_split) == (20, 20, "test")
    before = source(tmp_path / "ds").source.revision
    written(tmp_path / "blobs/train", csv_text(LABELS, "other {}"))
    assert source(tmp_path / "ds").source.revision != before


def test_a_directory_is_left_as_it_is(tmp_path):
    written(tmp_path / "ds/train.csv", csv_text(LABELS))
    before = sorted(tmp_path.rglob("*"))
    pools_of(tmp_path / "ds")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_configuration_of_a_directory(tmp_path):
    for name in "ab":
        written(tmp_path / f"{name}.csv", csv_text(LABELS, name + " {}"))
    written(tmp_path / "README.md", TWO)
    for name in "ab":
        assert f"{name} 3" in examples_of(pools_of(tmp_path, dataset_config=name))
    with pytest.raises(WorkloadError, match="several configurations") as caught:
        pools_of(tmp_path)
    assert caught.value.expected == "one of a, b"
    with pytest.raises(WorkloadError, match="no such configuration") as caught:
        pools_of(tmp_path, dataset_config="bb")
    assert caught.value.nearest == "b"


def test_a_configuration_where_there_are_none(tmp_path):
    file = written(tmp_path / "ds/train.csv", csv_text(LABELS))
    for of in (file, file.parent):
        with pytest.raises(WorkloadError, match="configurations") as caught:
            pools_of(of, dataset_config="b")
        assert caught.value.where == "workload.dataset_config"
    Dataset.from_dict({"text": ["a"], "label": [1]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(WorkloadError, match="configurations"):
        pools_of(tmp_path / "saved", dataset_config="b")


@pytest.mark.parametrize("setting", [{"separator": ";"}, {"encoding": "cp1252"}])
def test_a_setting_that_means_nothing_is_refused(tmp_path, setting):
    saved(tmp_path / "ds", train=20)
    with pytest.raises(WorkloadError, match="this data set has none") as caught:
        pools_of(tmp_path / "ds", **setting)
    assert caught.value.where == f"workload.{next(iter(setting))}"


def test_a_configuration_s_own_separator_and_class_names(tmp_path):
    header = (
        "---\nconfigs:\n- config_name: default\n  data_files: d.csv\n  sep: ':'\n"
        "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n"
        "    dtype:\n      class_label:\n        names:\n          '0': bad\n          '1': good\n---\n"
    )
    written(tmp_path / "d.csv", csv_text(LABELS, "{}", ":"))
    written(tmp_path / "README.md", header)
    assert pools_of(tmp_path).labels == ("bad", "good")
    written(tmp_path / "d.csv", csv_text(["good", "bad"] * 10, "{}", ":"))
    assert examples_of(pools_of(tmp_path))["3"] == "bad"
    written(tmp_path / "d.csv", csv_text(["good", "bad"] * 10 + ["gud"], "{}", ":"))
    with pytest.raises(WorkloadError, match="none of the data set's own names") as caught:
        pools_of(tmp_path)
    assert caught.value.got == "'gud': row 22 of d.csv"
    written(tmp_path / "README.md", header.replace("sep: ':'", "skiprows: 3"))
    with pytest.raises(WorkloadError, match="options of the library") as caught:
        pools_of(tmp_path)
    assert caught.value.got == "skiprows: 3"


def saved(path, **splits):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {
        name: {"text": [f"{name} {n}" for n in range(size)], "label": [n % 2 for n in range(size)]}
        for name, size in splits.items()
    }
    DatasetDict(
        {name: Dataset.from_dict(data, features=features) for name, data in rows.items()}
    ).save_to_disk(path)


@pytest.mark.parametrize("name", ["../../outside.arrow", "cache-1.arrow", "missing.arrow"])
def test_a_saved_data_set_may_read_only_what_is_hashed(tmp_path, name):
    """Its state names the files: not those of another directory, nor those that are left out of the revision."""
    saved(tmp_path / "ds", train=20)
    state = tmp_path / "ds/train/state.json"
    found = json.loads(state.read_text())
    data = tmp_path / "ds/train" / found["_data_files"][0]["filename"]
    if "missing" not in name:
        (tmp_path / "ds/train" / name).write_bytes(data.read_bytes())
    state.write_text(json.dumps(found | {"_data_files": [{"filename": name}]}))
    with pytest.raises(WorkloadError, match="outside of its directory"):
        pools_of(tmp_path / "ds")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset_dict.json", '{"splits": 3}'),
        ("train/state.json", "{"),
        ("train/state.json", '{"_data_files": []}'),
        ("train/state.json", '{"_data_files": [{"filename": 3}]}'),
        ("train/dataset_info.json", "\xff"),
    ],
)
def test_a_saved_data_set_with_a_broken_description(tmp_path, file, content):
    saved(tmp_path / "ds", train=20)
    written(tmp_path / "ds" / file, content)
    with pytest.raises(WorkloadError):
        pools_of(tmp_path / "ds")


def test_files_of_a_split_have_one_type_for_a_column(tmp_path):
    for name, label in (("a", '"1"'), ("b", "1")):
        rows = "\n".join(f'{{"text": "{n}", "label": {label}}}' for n in range(9))
        written(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(WorkloadError, match="column label has another type") as caught:
        pools_of(f"{tmp_path}/*.jsonl")
    assert "a.jsonl" in caught.value.got
    assert "b.jsonl" in caught.value.got


def test_labels_of_the_splits_have_one_type(tmp_path):
    written(tmp_path / "train.csv", csv_text(LABELS))
    written(tmp_path / "test.csv", csv_text([0, "?"] * 5))
    with pytest.raises(WorkloadError, match="of one split are texts") as caught:
        pools_of(tmp_path)
    assert caught.value.got == "0 in row 2 of train.csv; '0' in row 2 of test.csv"


def test_a_test_split_without_labels_can_be_done_without(tmp_path):
    """As in a competition: the labels of test.csv are hidden."""
    written(tmp_path / "train.csv", csv_text(LABELS))
    written(tmp_path / "test.csv", "text\n" + "\n".join(map(str, range(20))))
    with pytest.raises(WorkloadError, match=r"no such column in test.csv") as caught:
        pools_of(tmp_path)
    assert 'eval_split = "from-train"' in caught.value.hint
    assert len(pools_of(tmp_path, eval_split="from-train").train) == 16


def test_a_directory_of_other_files(tmp_path):
    written(tmp_path / "notes.docx", "x")
    with pytest.raises(WorkloadError, match="without data files") as caught:
        pools_of(tmp_path)
    assert "notes.docx" in caught.value.got


# Folders of texts


def label_folders(root, *folders, texts=10, suffix=".txt"):
    for folder in folders:
        for number in range(texts):
            written(root / folder / f"{number}_7{suffix}", f"{folder} text {number}\nof two lines")


def test_a_folder_of_texts_for_each_label(tmp_path):
    """As in aclImdb, with its files beside and its texts without a label."""
    label_folders(tmp_path, "train/pos", "train/neg", "train/unsup", "test/pos", "test/neg")
    for name in ("README", "imdb.vocab", "train/labeledBow.feat", "train/urls_pos.txt"):
        written(tmp_path / name, "x")
    pools = pools_of(tmp_path)
    assert (len(pools.train), len(pools.evaluation), pools.eval_split) == (20, 20, "test")
    assert pools.labels == ("neg", "pos")
    assert examples_of(pools)["train/pos text 3\nof two lines"] == "pos"
    assert pools.notes == ("train/unsup/: its 10 texts have no label, and are left out",)


def test_folders_without_splits(tmp_path):
    label_folders(tmp_path, "good", "bad", "so-so")
    pools = pools_of(tmp_path)
    assert pools.labels == ("bad", "good", "so-so")
    assert (len(pools.train), len(pools.evaluation)) == (24, 6)


def test_an_empty_text_of_a_folder_is_named(tmp_path):
    label_folders(tmp_path, "good", "bad")
    written(tmp_path / "bad/4_7.txt", " \n")
    with pytest.raises(WorkloadError, match="1 row has no text") as caught:
        pools_of(tmp_path)
    assert caught.value.got == "row 1 of bad/4_7.txt"


def test_folders_have_two_columns(tmp_path):
    label_folders(tmp_path, "good", "bad")
    with pytest.raises(WorkloadError, match="no such column") as caught:
        pools_of(tmp_path, text_column="review")
    assert caught.value.expected == "one of text, label"


# The hub


def test_offline_another_revision_is_not_taken_for_the_one_asked_for(monkeypatch):
    """The library takes the newest in its cache, whichever was asked for."""
    rows = Dataset.from_dict({"text": [str(n) for n in range(20)], "label": LABELS})

    class Cache(types.SimpleNamespace):
        def download_and_prepare(self):
            pass

        def as_dataset(self):
            return DatasetDict(train=rows)

    asked = []

    def builder(name, config, revision):
        asked.append((name, config, revision))
        return Cache(hash="abc")

    monkeypatch.setattr(module, "load_dataset_builder", builder)

    def of(revision) -> DataSource:
        hub = Source(reference="org/d", kind="hub", location="org/d", revision=revision)
        return data_source(source=hub, config="c")

    assert examples_of(load_pools(of("abc")))["3"] == "1"
    with pytest.raises(WorkloadError, match="another revision") as caught:
        load_pools(of("def"))
    assert (caught.value.got, caught.value.expected) == ("org/d at abc", "at def")
    assert asked == [("org/d", "c", "abc"), ("org/d", "c", "def")]
