"""The store of kept answers: what is damaged is gone, what is written is whole, what is old makes room."""

import multiprocessing
import os

import pytest

from ftbench.execute.kept.store import Store, Usage

DATA = {"answer": [1, 2, {"bytes": 2**40}], "text": "déjà vu"}
NOISE = [os.urandom(512).hex() for _ in range(3)]  # does not get smaller by compression


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache" / "answers")


def file_of(store, key):
    return store.folder / f"{key}.answer"


def test_what_is_written_is_read(store):
    assert store.read("a") is None
    store.write("a", DATA)
    assert store.read("a") == DATA
    assert store.read("b") is None
    assert (
        store.folder.stat().st_mode & 0o077 == 0
    )  # other users can neither read nor plant answers


def test_every_damaged_byte_is_seen(store):
    store.write("a", DATA)
    whole = file_of(store, "a").read_bytes()
    for place in range(len(whole)):
        file_of(store, "a").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        assert store.read("a") is None, place
        assert not file_of(store, "a").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 32, b"x" * 400])
def test_what_is_no_answer_is_removed(store, content):
    store.write("a", DATA)
    file_of(store, "a").write_bytes(content)
    assert store.read("a") is None
    assert not file_of(store, "a").exists()


def test_a_link_is_not_followed(store, tmp_path):
    store.write("a", DATA)
    elsewhere = tmp_path / "elsewhere"
    file_of(store, "a").rename(elsewhere)
    file_of(store, "a").symlink_to(elsewhere)
    assert store.read("a") is None
    assert elsewhere.exists()


def test_the_longest_unused_makes_room(store):
    for key, noise in zip("abc", NOISE, strict=True):
        store.write(key, noise)
    one = store.usage().nbytes // 3
    for age, key in enumerate("cba"):  # a is the oldest
        os.utime(file_of(store, key), ns=(0, 10**18 - age * 10**9))
    assert store.read("a") == NOISE[0]  # a use
    small = Store(store.folder, most_bytes=3 * one + one // 2)
    small.write("d", os.urandom(512).hex())
    assert [key for key in "abcd" if small.read(key)] == ["a", "c", "d"]
    assert small.usage().nbytes <= small.most_bytes


def test_what_a_writer_left_half_done_makes_room_too(store):
    store.write("a", NOISE[0])
    left = store.folder / ".b.answer.4711"
    left.write_bytes(b"x" * 10_000)
    os.utime(left, ns=(0, 0))
    Store(store.folder, most_bytes=5_000).write("c", NOISE[1])
    assert not left.exists()
    assert store.read("a") == NOISE[0]


def test_what_is_larger_than_the_store_is_not_kept(store):
    Store(store.folder, most_bytes=100).write("a", NOISE[0])
    assert store.usage() == Usage(0, 0)


def test_cleared_is_empty(store):
    store.write("a", DATA)
    store.write("b", DATA)
    assert store.clear().entries == 2
    assert store.usage() == Usage(0, 0)
    assert store.read("a") is None


def test_a_disk_that_cannot_be_written_to_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = Store(tmp_path / "file" / "answers")
    store.write("a", DATA)
    assert store.read("a") is None
    assert store.clear() == Usage(0, 0)


def write_often(folder, text):
    store = Store(folder)
    for _ in range(200):
        store.write("a", text)


def test_of_two_writers_one_is_read_and_never_a_mixture(store):
    texts = ["x" * 5_000, "y" * 7_000]
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(store.folder, text)) for text in texts]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(store.read("a"))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {None, *texts}
    assert store.read("a") in texts
    assert store.usage().entries == 1
