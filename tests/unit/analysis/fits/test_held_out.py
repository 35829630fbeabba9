import numpy as np
import pytest

from ftbench.analysis.fits.held_out import MOST_LEFT_OUT, Reach, Validation, cross_validate
from ftbench.analysis.fits.regression import TooFewCellsError

AXES = ("length", "batch")


def runs(cells, costs):
    length, batch = np.array(cells, dtype=float).T
    return {"length": length, "batch": batch, "cost": np.array(costs, dtype=float)}


GRID = [(s, b) for s in (8, 16, 32) for b in (1, 2, 4)]


class Recorder:
    """Estimates a cost as the mean of the cells it is given, and remembers them."""

    def __init__(self, needed=1):
        self.given = []
        self.needed = needed

    def __call__(self, of):
        if len(of["cost"]) < self.needed:
            raise TooFewCellsError("few")
        self.given.append(set(zip(of["length"], of["batch"], strict=True)))
        mean = of["cost"].mean()
        return lambda at: (np.full(len(at["length"]), mean), np.full(len(at["length"]), 0.05))


def test_of_a_large_grid_as_many_cells_are_left_out_as_tell_an_error_the_same_each_time():
    large = [(s, b) for s in range(1, 13) for b in range(1, 13)]
    drawn = []
    for _ in range(2):
        estimate = Recorder()
        found = cross_validate(runs(large, [1.0] * len(large)), "cost", AXES, estimate)
        assert found.interpolation.cells == MOST_LEFT_OUT
        drawn.append([set(large) - given for given in estimate.given[:MOST_LEFT_OUT]])
    assert drawn[0] == drawn[1]
    assert len({cell for (cell,) in drawn[0]}) == MOST_LEFT_OUT
    assert len({length for ((length, _),) in drawn[0]}) > 8


def test_each_cell_inside_the_rest_is_left_out_and_each_edge():
    estimate = Recorder()
    cross_validate(runs(GRID, [1.0] * 9), "cost", AXES, estimate)
    left_out = [set(GRID) - given for given in estimate.given]
    # The smallest and the largest cell lie inside each axis but not inside the rest.
    assert left_out[:7] == [{cell} for cell in GRID if cell not in ((8, 1), (32, 4))]
    assert left_out[7:] == [{(32, 1), (32, 2), (32, 4)}, {(8, 4), (16, 4), (32, 4)}]


def test_a_cell_goes_with_all_of_its_runs():
    estimate = Recorder()
    found = cross_validate(runs([*GRID, (16, 2), (16, 2)], [1.0] * 11), "cost", AXES, estimate)
    assert sum((16, 2) not in given for given in estimate.given) == 1
    assert found.interpolation.cells == 7


def test_errors_are_shares_of_the_mean_over_a_cells_runs():
    costs = [1.0] * 4 + [1.5] + [1.0] * 4 + [2.5]  # the middle cell twice: 2.0 on average
    found = cross_validate(runs([*GRID, (16, 2)], costs), "cost", AXES, Recorder())
    assert found.interpolation.largest_error == pytest.approx(0.5)
    assert found.interpolation.within == pytest.approx(0)  # all others: 1.25 or so where 1 is right
    assert found.inside == pytest.approx(np.log(2))


def test_the_share_inside_the_interval():
    found = cross_validate(runs(GRID, [1.0] * 9), "cost", AXES, Recorder())
    assert (found.interpolation.within, found.extrapolation.within) == (1, 1)
    assert found.extrapolation.cells == 5


def test_each_axis_has_its_own_error_and_a_corner_counts_once():
    costs = {(s, b): 1.0 + 0.5 * (s == 32) + 2.0 * (b == 4) for s, b in GRID}
    found = cross_validate(runs(GRID, list(costs.values())), "cost", AXES, Recorder()).extrapolation

    def off(cells):
        """How far the mean of the other cells is off on these."""
        mean = np.mean([cost for cell, cost in costs.items() if cell not in cells])
        return {cell: abs(mean / costs[cell] - 1) for cell in cells}

    long = off([cell for cell in GRID if cell[0] == 32])
    large = off([cell for cell in GRID if cell[1] == 4])
    once = [max(long.get(cell, 0.0), large.get(cell, 0.0)) for cell in {**long, **large}]
    assert found.by_axis["length"] == pytest.approx(np.median(list(long.values())))
    assert found.by_axis["batch"] == pytest.approx(np.median(list(large.values())))
    assert found.median_error == pytest.approx(np.median(once))
    assert found.median_error != pytest.approx(np.median([*long.values(), *large.values()]))
    assert found.largest_error == pytest.approx(max(once))


def test_too_few_cells_to_leave_any_out():
    found = cross_validate(runs(GRID, [1.0] * 9), "cost", AXES, Recorder(needed=9))
    assert found.interpolation is None
    assert found.extrapolation is None


def test_errors_beyond_the_largest_grow_with_the_doublings():
    reach = Reach(smallest=8, largest=32, error=0.1, doublings=1)
    assert reach.margin(32) == reach.margin(8) == 0
    assert reach.margin(48) == pytest.approx(0.1)  # never less than what was seen
    assert reach.margin(256) == pytest.approx(0.3)
    assert reach.margin(2) == pytest.approx(0.2)


def test_an_axis_that_was_not_tested_has_the_others_worst_error():
    costs = [1.0 if length < 32 else 1.2 for length, _ in GRID]
    data = runs(GRID, costs) | {"size": np.full(9, 100.0)}
    found = cross_validate(data, "cost", (*AXES, "size"), Recorder())
    assert found.reach["size"].margin(200) == pytest.approx(np.log(1.2), rel=0.1)
    assert found.margin({"length": 16, "batch": 2, "size": 100}) == found.inside


def test_margins_are_added_over_the_axes_and_no_less_than_inside():
    reach = {
        "length": Reach(smallest=8, largest=32, error=0.1, doublings=2),
        "batch": Reach(smallest=1, largest=4, error=0.2, doublings=1),
    }
    found = Validation(None, None, 0.15, reach)
    assert found.margin({"length": 16, "batch": 2}) == 0.15
    assert found.margin({"length": 64, "batch": 2}) == 0.15  # 0.1 alone is less
    assert found.margin({"length": 32, "batch": 5}) == pytest.approx(0.2)
    assert found.margin({"length": 64, "batch": 16}) == pytest.approx(0.1 + 0.4)
    assert found.margin({"length": 512, "batch": 4}) == pytest.approx(0.2)  # four doublings of two
    assert found.margin({"size": 10**6}) == 0.15


def test_the_reach_of_an_axis_is_its_values_and_the_doublings_that_were_tested():
    found = cross_validate(runs(GRID, [1.0] * 9), "cost", AXES, Recorder()).reach
    assert (found["length"].smallest, found["length"].largest) == (8, 32)
    assert found["length"].doublings == 1
    wide = [(s, b) for s in (8, 16, 128) for b in (1, 2, 4)]
    costs = [2.0 if s == 128 else 1.0 for s, _ in wide]
    found = cross_validate(runs(wide, costs), "cost", AXES, Recorder()).reach
    assert found["length"].doublings == 3
    assert found["length"].error == pytest.approx(np.log(2))
    assert found["batch"].error == pytest.approx(np.log(2 / (4 / 3)))


def test_an_axis_of_one_value_is_not_tested_and_has_the_largest_error_over_one_doubling():
    data = runs(GRID, [2.0 if s == 32 else 1.0 for s, _ in GRID]) | {"size": np.full(9, 100.0)}
    found = cross_validate(data, "cost", (*AXES, "size"), Recorder())
    assert "size" not in found.extrapolation.by_axis
    assert found.reach["size"] == Reach(100, 100, pytest.approx(np.log(2)), 1.0)


def test_where_nothing_can_be_left_out_no_error_is_known():
    found = cross_validate(runs(GRID, [1.0] * 9), "cost", AXES, Recorder(needed=9))
    assert found.inside == 0
    assert found.margin({"length": 512, "batch": 2}) == 0


def test_the_share_inside_is_of_the_interval_as_it_was():
    """Its half of 0.05 holds the cells that are 3 % below their mean, and not those that are 7 % above."""
    costs = [np.exp(0.1 if n % 3 == 2 else 0.0) for n in range(9)]
    one = cross_validate(runs(GRID, costs), "cost", AXES, Recorder()).interpolation
    off = []
    for number, cell in enumerate(GRID):
        if cell not in ((8, 1), (32, 4)):
            off.append(np.log(np.mean(costs[:number] + costs[number + 1 :]) / costs[number]))
    assert one.within == pytest.approx(np.mean(np.abs(off) <= 0.05))
    assert 0 < one.within < 1


def test_inside_is_the_error_that_95_of_100_stay_below():
    """Of 40 errors the 39th: 0.95 * 41 is 38.95."""
    large = [(s, b) for s in range(1, 9) for b in range(1, 8)]
    estimate = Recorder()
    found = cross_validate(runs(large, np.linspace(1, 2, 56)), "cost", AXES, estimate)
    left_out = [(set(large) - given).pop() for given in estimate.given[:40]]
    costs = dict(zip(large, np.linspace(1, 2, 56), strict=True))
    total = sum(costs.values())
    off = sorted(abs(np.log((total - costs[c]) / 55 / costs[c])) for c in left_out)
    assert found.inside == pytest.approx(off[38])
    assert found.interpolation.largest_error == pytest.approx(
        max(abs((total - costs[c]) / 55 / costs[c] - 1) for c in left_out)
    )
