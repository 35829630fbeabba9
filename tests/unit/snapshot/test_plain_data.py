"""A file that nobody vouches for makes plain data, or an error of ours: never a call, never all of the memory."""

import gzip
import json
import os
import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from ftbench.base.errors import SnapshotError
from ftbench.snapshot.plain_data import read_plain

EVENT = {"action": "alloc", "addr": 1 << 40, "size": 5}
DATA = {"segments": [], "device_traces": [[EVENT, EVENT]], "x": (1, None, 1.5, True)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.pickle"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_every_protocol_since_2_is_read(file: Path, protocol: int) -> None:
    file.write_bytes(pickle.dumps(DATA, protocol=protocol))
    assert read_plain(file) == DATA


def test_json_is_read_and_so_is_what_gzip_has_packed(file: Path) -> None:
    plain = {name: value for name, value in DATA.items() if name != "x"}
    file.write_text(json.dumps(plain))
    assert read_plain(file) == plain
    file.write_bytes(gzip.compress(json.dumps(plain).encode()))
    assert read_plain(file) == plain
    file.write_bytes(gzip.compress(pickle.dumps(DATA)))
    assert read_plain(file) == DATA


class _Calls:
    """Pickled, it is a call of `os.mkdir`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_code_is_refused_and_does_not_run_it(
    file: Path, tmp_path: Path, protocol: int
) -> None:
    made = tmp_path / "made"
    file.write_bytes(pickle.dumps([_Calls(made)], protocol=protocol))
    with pytest.raises(SnapshotError) as raised:
        read_plain(file)
    assert raised.value.got == "posix.mkdir"
    assert not made.exists()
    pickle.loads(file.read_bytes())  # the attack works on a reader that trusts its file
    assert made.is_dir()


OPCODES = {
    "a class by its name": b"\x80\x02cbuiltins\nlist\n.",
    "an instance by the name of its class": b"\x80\x02(ibuiltins\nlist\n.",
    "a name on the stack": b"\x80\x04\x8c\x08builtins\x8c\x04list\x93.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02\x8c\x01aQ.",
    "a call of a text": b"\x80\x02U\x01a(tR.",
    "state for a list": b"\x80\x02]}b.",
    "an object of a text": b"\x80\x02U\x01a(t\x81.",
    "a list as a key": b"\x80\x02}]K\x01s.",
    "nothing on the stack": b"\x80\x02.",
    "no end": b"\x80\x04]",
    "a text of 4 EiB": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62),
    "bytes of 1 TiB": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40),
    "a frame of 1 TiB": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"].",
    "a buffer beside the file": b"\x80\x05\x97.",
    "a number of too many digits": b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
    "a later protocol": b"\x80\x99].",
}


@pytest.mark.parametrize("content", OPCODES.values(), ids=OPCODES.keys())
def test_a_pickle_that_is_made_up_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SnapshotError):
        read_plain(file)


def test_a_pickle_may_not_take_more_memory_than_its_size_explains(file: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    place = (1 << 31) - 1  # the memo's place for an empty list: 32 GiB of pointers
    file.write_bytes(b"\x80\x02]r" + struct.pack("<I", place) + b".")
    with pytest.raises(SnapshotError) as raised:
        read_plain(file)
    assert "memory" in raised.value.what
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_file_that_is_cut_off_is_refused(file: Path) -> None:
    whole = pickle.dumps(DATA)
    packed, text = gzip.compress(whole), json.dumps({"segments": [1, 2]}).encode()
    for content in (whole[:-1], whole[: len(whole) // 2], packed[:-9], packed[:4], text[:-1], b""):
        file.write_bytes(content)
        with pytest.raises(SnapshotError):
            read_plain(file)


def test_a_file_that_is_too_large_is_refused_also_if_it_is_packed(file: Path) -> None:
    content = pickle.dumps(b"x" * 5000)
    assert read_plain(_written(file, content), most_bytes=len(content)) == b"x" * 5000
    for packed in (content, gzip.compress(content)):
        with pytest.raises(SnapshotError) as raised:
            read_plain(_written(file, packed), most_bytes=len(content) - 1)
        assert raised.value.what == "too large"


def test_json_that_is_too_deep_is_refused(file: Path) -> None:
    file.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(SnapshotError):
        read_plain(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(SnapshotError) as raised:
            read_plain(place)
        assert raised.value.where == str(place)


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
