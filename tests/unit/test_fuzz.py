"""Malformed input at every door: profiles, overrides, records, side files, a worker's answers.

Whatever comes in, the answer is a value that is valid or an `FtbenchError` that says what is wrong
in lines a terminal can show; no other exception, no hang, nothing written. Over 4,000 inputs a run.
"""

import copy
import json
import random
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbench.base.errors import FtbenchError, ProfileError, RunDirectoryError
from ftbench.base.files import checksum
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import build_profile, load_profile, parse_selection
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory
from tests.factories import data_source, model_source, profile_data, record

many = settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "../../etc/passwd",
            "/etc/passwd",
            "\x00",
            "<script>",
            "a|b",
            "🔥",
            "nan",
            "-1",
            "{}",
            "x" * 5000,
        ]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
VALID_TOML = """
description = "x"
[workload]
model = "offline:minilm-l6"
dataset = "offline:imdb"
eval_size = 8
[[grid]]
max_length = [16, 32]
per_device_train_batch_size = [4]
train_size = [16]
design = "star"
[training]
learning_rate = 2e-5
lr_scheduler_type = "cosine"
[run]
timeout_s = 60
replicates = 2
"""


def places(data, path=()):
    """Yield the path of every value inside nested data."""
    yield path
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def damaged(data, value, rng, how):
    """Return nested data with one value replaced, removed, or joined by a stranger."""
    data = copy.deepcopy(data)
    path = rng.choice([path for path in places(data) if path])
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[path[-1]] = value
    elif how == "remove":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent[str(value)[:30] + "?"] = value
    else:
        parent.append(value)
    return data


def is_clean(error):
    """Hold an error to what a terminal may be shown."""
    assert isinstance(error, FtbenchError)
    assert str(error).strip()
    assert "Traceback" not in str(error)
    assert error.exit_code == 2


def clean(call, *arguments, allowed=FtbenchError):
    """Return what a loader gives, or None where it refuses in the way it should."""
    try:
        return call(*arguments)
    except allowed as error:
        is_clean(error)
        return None


@many
@given(JSON, st.integers(), st.sampled_from(["replace", "remove", "add"]))
def test_a_profile_with_one_thing_wrong(value, seed, how):
    data = damaged(profile_data(), value, random.Random(seed), how)
    made = clean(lambda: build_profile(data, where="p.toml"), allowed=ProfileError)
    if made is not None:
        clean(expand, made, model_source(), data_source(), allowed=ProfileError)


@many
@given(
    st.dictionaries(st.sampled_from(["workload", "grid", "training", "run", "x"]), JSON, max_size=5)
)
def test_a_profile_of_anything(data):
    clean(lambda: build_profile({"name": "x", **data}, where="p.toml"), allowed=ProfileError)


@many
@given(st.binary(max_size=60), st.integers(0, len(VALID_TOML)), st.integers(0, 40))
def test_a_profile_file_with_bytes_in_it(tmp_path, noise, at, gone):
    text = VALID_TOML.encode()
    file = tmp_path / "p.toml"
    file.write_bytes(text[:at] + noise + text[at + gone :])
    clean(load_profile, str(file), allowed=ProfileError)


def test_the_profile_that_the_bytes_go_into_is_valid(tmp_path):
    tomllib.loads(VALID_TOML)
    (tmp_path / "p.toml").write_text(VALID_TOML)
    assert load_profile(str(tmp_path / "p.toml")).run.replicates == 2


@many
@given(
    st.text(max_size=60)
    | st.from_regex(r"[a-z_.]{1,20}=[\[\]{}\"'0-9a-z,. ]{0,20}", fullmatch=True)
)
def test_an_override_and_a_selection(text):
    clean(load_profile, "smoke", [text], allowed=ProfileError)
    clean(lambda: parse_selection(text, option="--only"), allowed=ProfileError)


@pytest.fixture
def directory(tmp_path):
    made = RunDirectory.create(tmp_path / "run")
    made.write_record(record())
    return made


def put(directory, content):
    """Put bytes in the place of the one record, and return its file."""
    (file,) = (directory.path / "records").glob("*.json")
    file.write_bytes(content)
    return file


def survives(directory):
    """Read the directory in both ways: strictly, and leaving out what is damaged."""
    clean(directory.records, allowed=RunDirectoryError)
    return clean(directory.survey, allowed=RunDirectoryError)


@many
@given(JSON, st.integers(), st.sampled_from(["replace", "remove", "add"]))
def test_a_record_with_one_thing_wrong_and_a_checksum_that_fits(directory, value, seed, how):
    whole = json.loads(record().model_dump_json())
    data = damaged(whole, value, random.Random(seed), how)
    try:
        text = json.dumps({"sha256": checksum(data), **data})
    except ValueError:  # not JSON: a NaN, which a writer of ours would not write either
        return
    put(directory, text.encode("utf-8", "surrogatepass"))
    found = survives(directory)
    if found and found[0]:
        assert isinstance(found[0][0], Record)


@many
@given(st.binary(max_size=200))
def test_a_record_of_any_bytes(directory, content):
    put(directory, content)
    records, broken = survives(directory)
    assert records == []
    assert len(broken) == 1


@many
@given(JSON)
def test_a_record_of_any_json(directory, data):
    put(directory, json.dumps(data).encode())
    found = survives(directory)
    assert found is None or found[0] == []  # None: a schema version of another ftbench


@many
@given(st.integers(0, 10**9), st.integers(0, 255))
def test_one_byte_of_a_record_changed_is_never_believed(directory, at, byte):
    file = directory.file("records", record().identity.name, ".json")
    directory.write_record(record())
    whole = bytearray(file.read_bytes())
    at %= len(whole)
    if whole[at] == byte:
        return
    whole[at] = byte
    put(directory, bytes(whole))
    found = survives(directory)
    # Only the space between values may change; what is read is then what was written.
    assert found is None or found[0] in ([], [record()])


@many
@given(JSON, st.sampled_from(["profile", "preparation"]))
def test_side_files_of_any_json(directory, data, name):
    (directory.path / f"{name}.json").write_text(json.dumps(data))
    clean(getattr(directory, f"read_{name}"), allowed=RunDirectoryError)


@pytest.mark.parametrize("depth", [10, 10**3, 10**5])
def test_nesting_without_an_end(directory, tmp_path, depth):
    put(directory, b'{"a":' * depth)
    assert survives(directory)[0] == []
    put(directory, b"[" * depth + b"]" * depth)
    assert survives(directory)[0] == []
    (tmp_path / "p.toml").write_text("a = " + "[" * depth + "]" * depth)
    clean(load_profile, str(tmp_path / "p.toml"), allowed=ProfileError)
    clean(load_profile, "smoke", ["grid.max_length=" + "[" * depth + "]" * depth])
