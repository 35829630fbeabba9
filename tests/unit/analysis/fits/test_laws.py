import pytest

from ftbench.analysis.fits.laws import CONFIDENCE, Fit, HeldOut, Interval, Refusal


def test_what_a_fit_leaves_unsaid():
    fit = Fit("total_s", "a", {}, 2, 2, lambda point: Interval(1, 1, 1), None, None)
    assert (fit.weak, fit.exact) == ((), False)


def test_a_refusal_of_all_cells():
    assert Refusal("total_s", "too few").fixed == {}


def test_laws_do_not_change():
    tested = HeldOut("interpolation", 3, 0.1, 0.2, 1.0)
    with pytest.raises(AttributeError):
        tested.cells = 4
    assert CONFIDENCE == 0.95
