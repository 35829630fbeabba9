"""The planted changes: each applies to the code that is installed, and says what must be named."""

import pytest

from tests.mutations.changes import HARMLESS, PLANTED
from tests.mutations.sharded_changes import SHARDED_PLANTED
from tests.mutations.subjects import Edit, sharded_subject, subject


def test_there_are_enough_of_both():
    assert len(PLANTED) >= 20
    assert len(HARMLESS) >= 20
    assert len({one.name for one in (*PLANTED, *HARMLESS)}) == len(PLANTED) + len(HARMLESS)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_regression_applies_and_names_its_place(planted):
    subject(planted.setup + planted.edits)
    assert planted.module
    assert planted.operator


@pytest.mark.parametrize("planted", SHARDED_PLANTED, ids=lambda one: one.name)
def test_a_regression_on_several_gpus_applies(planted):
    sharded_subject(planted.loop, planted.setup + planted.edits)


@pytest.mark.parametrize("harmless", HARMLESS, ids=lambda one: one.name)
def test_a_harmless_change_applies(harmless):
    subject(harmless.edits)


def test_an_edit_that_does_not_apply_is_an_error():
    with pytest.raises(ValueError, match="0 times"):
        Edit("training", "nowhere", "x").of("text")
    with pytest.raises(ValueError, match="2 times"):
        Edit("training", "a", "x").of("a a")
