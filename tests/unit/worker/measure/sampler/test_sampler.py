import pytest

from ftbench.worker.measure.sampler.reading import Reading
from ftbench.worker.measure.sampler.sampler import CPU_BUDGET, PSS_FLOOR_S, Sampler


class Rig:
    """A sampler with a fake clock, whose one instrument costs what the test says."""

    def __init__(self, cost_s):
        self.now_s = self.cpu_s = 0.0
        self.cost_s = cost_s
        self.sampler = Sampler(self, None, clock=lambda: self.now_s, cpu_clock=lambda: self.cpu_s)

    def read(self):
        self.cpu_s += self.cost_s
        return Reading({"peak_pss_bytes": 1}, {})

    def totals(self):
        return {}

    def run(self, seconds):
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += self.sampler.wait_s()
            self.sampler.sample_due()


class Counting:
    """A tree whose memory is the number of times that it was read."""

    def __init__(self):
        self.readings = 0

    def read(self):
        self.readings += 1
        return Reading({"peak_pss_bytes": self.readings}, {})

    def totals(self):
        return {}


@pytest.mark.parametrize(("cost_s", "period_s"), [(0.010, 2.0), (1e-5, PSS_FLOOR_S)])
def test_the_period_is_as_long_as_the_cost_asks_for(cost_s, period_s):
    rig = Rig(cost_s)
    rig.sampler.answer({"command": "start"})
    rig.run(200)
    report = rig.sampler.answer({"command": "stop"})
    assert report["period_s"] == pytest.approx(period_s)
    assert report["cpu_s"] / report["elapsed_s"] <= CPU_BUDGET * 1.02


def test_a_cost_that_rises_stretches_the_period():
    rig = Rig(0.001)
    rig.sampler.answer({"command": "start"})
    rig.run(10)
    rig.cost_s = 0.020
    rig.run(200)
    before = rig.now_s
    rig.run(0.001)
    assert rig.now_s - before == pytest.approx(4.0, rel=0.01)


def test_a_dear_reading_is_taken_once_a_phase():
    tree, cpu = Counting(), iter(range(0, 1000, 1))
    sampler = Sampler(tree, None, clock=lambda: 0.0, cpu_clock=lambda: float(next(cpu)))
    for phase in ("load", "train", "save", "train", "save", "train"):
        sampler.answer({"command": "start", "phase": phase})
        sampler.answer({"command": "read"})
    assert tree.readings == 1 + 3  # one to begin with, one as each phase ends


def test_a_cheap_reading_is_taken_at_the_end_of_every_entry():
    tree = Counting()
    sampler = Sampler(tree, None, clock=lambda: 0.0, cpu_clock=lambda: 0.0)
    for phase in ("load", "train", "save", "train"):
        sampler.answer({"command": "start", "phase": phase})
        sampler.answer({"command": "read"})
    assert tree.readings == 1 + 4


def test_an_entry_that_was_not_read_has_no_figure_of_another():
    tree, cpu = Counting(), iter(range(0, 1000, 1))
    sampler = Sampler(tree, None, clock=lambda: 0.0, cpu_clock=lambda: float(next(cpu)))
    figures = []
    for phase in ("train", "save", "train"):
        sampler.answer({"command": "start", "phase": phase})
        figures.append(sampler.answer({"command": "read"})["figures"])
    assert [bool(found) for found in figures] == [True, True, True]
    # The third is the reading that it began at, which closed the second.
    assert [found["peak_pss_bytes"] for found in figures] == [2, 3, 3]


def test_before_the_first_phase_nothing_is_due():
    assert Rig(1.0).sampler.wait_s() is None


def test_a_command_that_is_not_known():
    with pytest.raises(ValueError, match="expected idle"):
        Rig(0).sampler.answer({"command": "dance"})
