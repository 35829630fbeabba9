import pytest

from ftbench.worker.measure.sampler.reading import Reading
from ftbench.worker.measure.sampler.series import Pace, Series


class Constant:
    def read(self):
        return Reading({"peak_pss_bytes": 1}, {})

    def totals(self):
        return {}


def test_samples_out_of_turn_put_the_next_one_off():
    pace = Pace(0.05, 0.005)
    for _ in range(3):
        pace.spent(0.010, now_s=1.0)
    assert pace.due_s == pytest.approx(1.0 + 3 * 2.0)


def test_samples_are_bounded_and_thinned_evenly():
    series = Series(Constant(), Pace(1, 1), most=8)
    for second in range(37):
        series.sample(float(second), "train")
    times = [sample[0] for sample in series.kept]
    assert len(times) < 8
    assert times == [float(t) for t in range(0, 37, int(times[1]))]
    assert (series.count, series.period_s()) == (37, 1.0)
