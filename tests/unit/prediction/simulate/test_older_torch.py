"""What is said and corrected for an assumed version of torch."""

import pytest

from ftbench.prediction.simulate.cards import installed_torch
from ftbench.prediction.simulate.older_torch import version_note, version_of_workspaces


@pytest.mark.parametrize(
    ("assumed", "known"),
    [
        ((1, 10), ["65242"]),
        ((1, 11), []),
        ((2, 3), []),
        ((2, 6), ["156495"]),
        ((2, 9), ["175879"]),
        ((2, 11), ["175879"]),
        ((99, 0), []),
    ],
)
def test_a_note_names_what_is_corrected_with_its_source(assumed, known):
    (note,) = version_note(assumed)
    found = [source for source in ("65242", "156495", "175879") if source in note]
    assert found == known
    assert ("nothing is known" in note) == (not known)


def test_without_an_assumed_version_nothing_is_said():
    assert version_note(None) == ()


@pytest.mark.parametrize("assumed", [None, (1, 10), (99, 0)])
def test_workspaces_that_are_not_known_are_those_of_the_installed_version(assumed):
    assert version_of_workspaces(assumed) == installed_torch()


def test_workspaces_that_are_known():
    assert version_of_workspaces((2, 6)) == (2, 6)
