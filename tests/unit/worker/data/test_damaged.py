"""Data files with damaged bytes, in every format: examples, or a clean error; nothing else, and no hang."""

import gzip
import random

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import Workload
from ftbench.plan.sources import resolve_data
from ftbench.worker.data.pools import load_pools

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.gz")
# Bytes that mean something in one of the formats, beside those of any value.
TELLING = tuple(b"\x00\x1a\"'\n\r\t,;{}[]:\\\xff\xfe\xef")
damages = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=FORMATS)
def whole(request, tmp_path):
    """Return (a place for the file, its bytes): forty documents of two classes."""
    rows = Dataset.from_dict(
        {"text": [f"a document, {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    )
    kind, _, packed = request.param.partition(".")
    plain = tmp_path / f"plain.{kind}"
    if kind in ("csv", "tsv"):
        rows.to_csv(plain, sep="\t" if kind == "tsv" else ",")
    elif kind == "parquet":
        rows.to_parquet(plain)
    else:
        rows.to_json(plain, lines=kind == "jsonl")
    content = plain.read_bytes()
    plain.unlink()
    return tmp_path / f"data.{request.param}", gzip.compress(content) if packed else content


def pools(place):
    source = resolve_data(Workload(model="m", dataset=str(place), eval_size=2))
    return load_pools(source)


def test_the_whole_files_are_read(whole):
    place, content = whole
    place.write_bytes(content)
    assert len(pools(place).train) == 32


@damages
@given(
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from(["changed", "removed", "added", "cut", "twice"]),
)
def test_a_damaged_file_is_read_or_refused(whole, seed, how):
    place, content = whole
    draw = random.Random(seed)
    at, until = sorted(draw.choices(range(len(content) + 1), k=2))
    noise = bytes(draw.choice((draw.randrange(256), draw.choice(TELLING))) for _ in range(8))
    place.write_bytes(
        {
            "changed": content[:at] + noise[: draw.randint(1, 8)] + content[at + 4 :],
            "removed": content[:at] + content[until:],
            "added": content[:at] + noise + content[at:],
            "cut": content[:at],
            "twice": content[:until] + content[at:],
        }[how]
    )
    try:
        found = pools(place)
    except WorkloadError:
        return
    assert found.train.column_names == ["text", "labels"]
