"""Files with bytes changed, cut off, put in or said twice: read, or refused in words, never a traceback."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import csv_text, pools_of, written

TRIES = 60
ROWS = {"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
OBJECTS = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
PUT_IN = [
    b'"',
    b"\n",
    b",",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"1e400",
    b"NaN",
    b"\xe9",
]


def parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(ROWS), sink)
    return sink.getvalue().to_pybytes()


WHOLE = {
    "d.csv": csv_text([0, 1] * 10).encode(),
    "d.tsv": csv_text(["a", "b"] * 10, separator="\t").encode(),
    "d.csv.gz": gzip.compress(csv_text([0, 1] * 10).encode(), mtime=0),
    "d.jsonl": "\n".join(map(json.dumps, OBJECTS)).encode(),
    "d.json": json.dumps(OBJECTS).encode(),
    "d.parquet": parquet(),
}


def damaged(content: bytes, drawn: random.Random) -> bytes:
    for _ in range(drawn.choice([1, 1, 2, 5])):
        at = drawn.randrange(len(content) + 1)
        how = drawn.randrange(5)
        if how == 0:
            content = content[:at] + bytes([drawn.randrange(256)]) + content[at + 1 :]
        elif how == 1:
            content = content[:at] + drawn.choice(PUT_IN) + content[at:]
        elif how == 2:
            content = content[:at] + content[at + drawn.randrange(1, 8) :]
        elif how == 3:
            content = content[:at] + content[max(0, at - 30) :]
        else:
            content = content[:at]
    return content


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_read_or_refused(tmp_path, name):
    drawn, refused = random.Random(0), 0
    for _ in range(TRIES):
        file = written(tmp_path / name, damaged(WHOLE[name], drawn))
        try:
            pools_of(file, drop_duplicates=True, balanced=drawn.random() < 0.5)
        except WorkloadError:
            refused += 1
    assert 0 < refused < TRIES or name == "d.csv.gz"
