"""`import ftbench`: the verbs are there, and stay functions, at no cost before they are used."""

import subprocess
import sys

import pytest

import ftbench

VERBS = ("estimate", "gate", "open", "predict", "run")


def test_the_verbs_are_functions_whatever_is_imported():
    import ftbench.estimation
    import ftbench.gating
    import ftbench.prediction

    assert all(callable(getattr(ftbench, name)) for name in VERBS)
    assert set(VERBS) <= set(dir(ftbench))
    assert set(VERBS) - set(ftbench.__all__) == {"open"}  # Python's own stays after a star import


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="predikt"):
        ftbench.predikt  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    code = "import sys, ftbench; print([m for m in sys.modules if m.startswith('ftbench.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
