import pytest

from ftbench.base.errors import ProfileError
from ftbench.estimation.prices import Price, given_prices, prices_of
from ftbench.plan.gpus import find_gpu, load_gpus

L4, T4, RTX = find_gpu("l4"), find_gpu("t4"), find_gpu("rtx-3060")


def prices(*given, of=(L4, T4)):
    return [price and price.usd_per_hour for price in prices_of(given_prices(given), of)]


def test_one_price_is_for_all_devices_and_several_are_in_their_order():
    assert prices("0.8", of=(L4, T4, None)) == [0.8] * 3
    assert prices("0.8", "2") == [0.8, 2.0]


def test_a_price_of_a_card_comes_before_the_one_for_all_and_the_list_price():
    assert prices("T4=0.3") == [L4.list_price.usd_per_hour, 0.3]
    assert prices("T4=0.3", "0.8") == [0.8, 0.3]
    assert prices("nvidia l4=0.7", "t4=0.3") == [0.7, 0.3]


def test_a_list_price_says_that_it_is_one():
    assert prices_of(given_prices(()), (L4, None, RTX)) == [
        Price(L4.list_price.usd_per_hour, L4.list_price),
        None,
        None,
    ]
    (given,) = prices_of(given_prices(("0.8",)), (L4,))
    assert given.listed is None


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "x", "", "l4=", "l4=0", "t4=x"])
def test_a_price_is_a_number_above_nothing(given):
    with pytest.raises(ProfileError, match="not a price"):
        given_prices((given,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("1", "2", "3"), "as many prices"),
        (("h100=2",), "not asked about"),
        (("no-card=2",), "not asked about"),
    ],
)
def test_prices_that_belong_to_no_device(given, said):
    with pytest.raises(ProfileError, match=said) as error:
        prices(*given)
    assert error.value.where in ("--usd-per-hour", "--gpu")


def test_every_list_price_has_its_day_and_its_source():
    listed = [gpu.list_price for gpu in load_gpus().values() if gpu.list_price]
    assert len(listed) >= 10
    for price in listed:
        assert 0.1 < price.usd_per_hour < 20
        assert price.date > "2026-01-01"
        assert "transcribed at https://" in price.source


def test_a_card_that_the_catalogue_lacks_has_a_price_by_its_own_name():
    other = L4.model_copy(update={"name": "NVIDIA RTX 9", "list_price": None})
    assert prices("rtx-9=2", of=(other, None)) == [2.0, None]
    with pytest.raises(ProfileError, match="not asked about"):
        prices_of(given_prices(("rtx-90=2",)), (other,))
