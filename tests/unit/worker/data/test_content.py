"""The bytes of data files: encodings, compression, stand-ins."""

import pytest

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import csv_text, examples_of, pools_of, written

FRENCH = "le café déjà vu à l'hôtel numéro {}"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", FRENCH),
        ("utf-8-sig", FRENCH),
        ("utf-16", FRENCH),
        ("latin-1", FRENCH),
        ("cp1252", "le prix: 10 € “cher” à Noël {}"),
        ("cp1251", "Привет мир как дела что нового номер {}"),
        ("cp1252", "le café numéro {} déjà vu"),
        ("latin-1", "El niño comió piñas ¿sí? {}"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy {}"),
        ("cp1253", "Καλημέρα κόσμε τι κάνεις {}"),
        ("koi8-r", "Привет мир как дела что нового номер {}"),
        ("gb18030", "这是一个测试文本数据还有更多的文字 {}"),
        ("shift_jis", "これはテストです。日本語の文章を書きます {}"),
    ],
)
def test_an_encoding_is_found(tmp_path, encoding, text):
    content = csv_text([0, 1] * 10, text).encode(encoding)
    pools = pools_of(written(tmp_path / "d.csv", content))
    assert examples_of(pools)[text.format(3)] == "1"
    assert bool(pools.notes) == (not encoding.startswith("utf"))


def test_an_encoding_is_settable_and_the_byte_named_that_does_not_fit(tmp_path):
    content = csv_text([0, 1] * 10, FRENCH).encode("latin-1")
    file = written(tmp_path / "d.csv", content)
    assert FRENCH.format(3) in examples_of(pools_of(file, encoding="latin-1"))
    with pytest.raises(WorkloadError, match=f"at byte {content.index(0xE9)}") as caught:
        pools_of(file, encoding="utf-8")
    assert "d.csv" in caught.value.got
    with pytest.raises(WorkloadError, match="no such encoding") as caught:
        pools_of(file, encoding="latn-1")
    assert (caught.value.where, caught.value.nearest) == ("workload.encoding", "latin-1")


def test_the_byte_is_named_far_into_a_file(tmp_path):
    content = csv_text([0, 1] * 100_000, "a plain text {}").encode()
    with pytest.raises(WorkloadError, match=f"at byte {len(content):,}"):
        pools_of(written(tmp_path / "d.csv", content + b"\xe9,1\n"), encoding="utf-8")


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet", "d.tsv"])
def test_a_git_lfs_pointer_is_called_one(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665d6\nsize 4000400\n"
    with pytest.raises(WorkloadError, match="Git LFS pointer"):
        pools_of(written(tmp_path / name, pointer))
