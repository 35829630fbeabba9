import pytest

from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate, Estimate
from ftbench.estimation.prices import Price
from ftbench.estimation.ranking import ranked
from ftbench.estimation.reasons import KernelTimes, NoPrice
from tests.unit.report.commands.test_estimate import ACCURACY, FOUND

HOUR = 3600.0


def kernels(host=0.1, beside=0.1):
    return KernelTimes("fp32", 1e13, 1e12, 1.4, (), 159, 22, host_share=host, beside_share=beside)


def device(name, hours, *, usd=None, width=1.5, verdict="fits", source=None):
    """A device where the run takes so many hours, up and down by a factor."""
    ends = (hours, hours / width, hours * width)
    time = EstimatedFigure("time_s", *(HOUR * n for n in ends), "90 %", source or kernels())
    cost = EstimatedFigure("cost_usd", absent=NoPrice())
    if usd is not None:
        cost = EstimatedFigure("cost_usd", *(usd * n for n in ends), "90 %", source or kernels())
    return DeviceEstimate(name, Price(usd) if usd else None, (time, cost), verdict)


def ranking(*devices):
    return ranked(Estimate(FOUND.target, FOUND.job, None, devices, ACCURACY))


def order(found):
    return [one.device for one in found.devices]


def test_without_prices_the_fastest_is_the_first():
    found = ranking(device("slow", 9.0), device("fast", 1.0), device("medium", 3.0))
    assert (found.by, order(found)) == ("time_s", ["fast", "medium", "slow"])
    assert (found.best.device, found.tied) == ("fast", ())


def test_with_prices_the_cheapest_is_the_first_and_those_without_are_last():
    found = ranking(
        device("free", 0.5), device("fast", 1.0, usd=9.0), device("cheap", 3.0, usd=1.0)
    )
    assert (found.by, order(found)) == ("cost_usd", ["cheap", "fast", "free"])
    assert found.tied == ()  # 9 / 1.5 is more than 3 x 1.5


def test_devices_whose_intervals_reach_the_first_are_not_distinguishable():
    found = ranking(device("a", 1.0), device("b", 2.0), device("c", 2.3), device("d", 1.2))
    assert order(found) == ["a", "d", "b", "c"]
    assert found.tied == ("d", "b")  # 2.0 / 1.5 is less than 1.5, 2.3 / 1.5 is more
    assert found.causes == ("uncertain",)


def test_a_device_that_the_run_does_not_fit_on_is_last_and_never_tied():
    found = ranking(device("small", 1.0, verdict="does not fit"), device("large", 1.1))
    assert order(found) == ["large", "small"]
    assert (found.best.device, found.tied) == ("large", ())


def test_a_device_that_the_run_may_not_fit_on_comes_behind_those_it_fits_on():
    found = ranking(device("perhaps", 1.0, verdict="too close to call"), device("sure", 9.0))
    assert order(found) == ["sure", "perhaps"]
    assert (found.tied, found.perhaps) == ((), ("perhaps",))


def test_a_device_without_a_price_that_the_run_fits_on_is_the_best_before_a_priced_one_it_may_not_fit_on():
    found = ranking(device("perhaps", 1.0, usd=1.0, verdict="too close to call"), device("sure", 9))
    assert (found.by, order(found), found.best.device) == ("time_s", ["sure", "perhaps"], "sure")
    assert (found.tied, found.perhaps) == ((), ("perhaps",))


def test_a_price_where_the_run_fits_orders_by_money_whatever_the_others_have():
    found = ranking(
        device("perhaps", 1.0, usd=1.0, verdict="too close to call"),
        device("unpriced", 1.0),
        device("priced", 9.0, usd=2.0),
        device("never", 0.1, usd=0.1, verdict="does not fit"),
    )
    assert (found.by, order(found)) == ("cost_usd", ["priced", "unpriced", "perhaps", "never"])


def test_of_devices_of_which_none_surely_holds_the_run_the_cheapest_is_the_best():
    close = "too close to call"
    found = ranking(device("a", 1.0, verdict=close), device("b", 2.0, usd=1.0, verdict=close))
    assert (found.by, found.best.device) == ("cost_usd", "b")


@pytest.mark.parametrize("devices", [[], [device("a", 1.0, verdict="does not fit")]])
def test_where_it_fits_nowhere_there_is_no_best(devices):
    assert ranking(*devices).best is None


@pytest.mark.parametrize(
    ("host", "beside", "causes"),
    [
        (0.9, 0.1, ("host-bound",)),
        (0.1, 0.9, ("too small",)),
        (0.9, 0.9, ("host-bound", "too small")),
        (0.2, 0.2, ("uncertain",)),
    ],
)
def test_causes_are_those_of_all_that_are_tied(host, beside, causes):
    source = kernels(host, beside)
    found = ranking(device("a", 1.0, source=source), device("b", 1.1, source=source))
    assert found.causes == causes
    mixed = ranking(device("a", 1.0, source=source), device("b", 1.1))
    assert mixed.causes == ("uncertain",)


def test_a_far_cheaper_device_that_it_may_not_fit_on_is_not_tied():
    found = ranking(
        device("a", 10.0, usd=1.0), device("b", 1.0, usd=1.0, verdict="too close to call")
    )
    assert found.best.device == "a"
    assert (found.tied, found.causes, found.perhaps) == ((), (), ("b",))
