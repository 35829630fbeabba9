import pytest

from ftbench.base import errors
from ftbench.base.errors import (
    FtbenchError,
    ProfileError,
    WorkerError,
    WorkloadError,
    nearest_name,
)


def test_message_has_a_headline_and_a_line_for_each_detail():
    error = ProfileError(
        "unknown key", where="p.toml: run.x", got="1", expected="2", nearest="y", hint="z"
    )
    assert str(error).splitlines() == [
        "p.toml: run.x: unknown key",
        "  got:      1",
        "  expected: 2",
        "  nearest:  y",
        "  hint:     z",
    ]


def test_details_that_are_absent_have_no_line():
    assert str(ProfileError("gone")) == "gone"


@pytest.mark.parametrize("cls", list(errors._CLASSES.values()))
def test_an_error_survives_the_way_out_of_a_worker(cls):
    error = cls("what", where="there", got="1", hint="do")
    back = FtbenchError.from_json(error.to_json())
    assert type(back) is cls
    assert str(back) == str(error)


def test_a_class_that_is_not_known_is_a_worker_error():
    assert isinstance(FtbenchError.from_json({"class": "Other", "what": "w"}), WorkerError)


def test_at_puts_a_place_in_front():
    assert WorkloadError("w", where="b").at("a").where == "a: b"
    assert WorkloadError("w").at("a").where == "a"


def test_nearest_name():
    assert nearest_name("max_lenght", ["max_length", "train_size"]) == "max_length"
    assert nearest_name("zzz", ["max_length"]) is None
