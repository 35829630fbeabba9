"""Prices of device-hours: those that the user gives, else the dated list prices of the catalogue. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.plan.gpus import Gpu, ListPrice, find_gpu, same_name

_WHERE = "--usd-per-hour"


@dataclasses.dataclass(frozen=True)
class Price:
    """The price of an hour in USD; `listed` is its source if it is a list price, None if the user gave it."""

    usd_per_hour: float
    listed: ListPrice | None = None


@dataclasses.dataclass(frozen=True)
class GivenPrices:
    """The prices that the user gives: for devices in their order (one is for all), and by the name of a card."""

    in_order: tuple[float, ...] = ()
    by_card: Mapping[str, float] = dataclasses.field(default_factory=dict)


def given_prices(texts: Sequence[str]) -> GivenPrices:
    """Return the prices of `0.8` or `l4=0.71`; raises ProfileError for what is neither."""
    in_order: list[float] = []
    by_card: dict[str, float] = {}
    for text in texts:
        card, equals, price = text.rpartition("=")
        if equals:
            by_card[_name_of(card)] = _price(price, text)
        else:
            in_order.append(_price(text, text))
    return GivenPrices(tuple(in_order), by_card)


def _name_of(card: str) -> str:
    """Return the catalogue's name of a card; another may have been calibrated under its own."""
    try:
        return find_gpu(card).name if card else ""
    except ProfileError:
        return card


def _price(text: str, given: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = 0.0
    if 0 < price < float("inf"):
        return price
    raise ProfileError(
        "not a price", where=_WHERE, got=given, expected="a number above 0, or CARD=NUMBER"
    )


def prices_of(given: GivenPrices, devices: Sequence[Gpu | None]) -> list[Price | None]:
    """Return the price of each device; None stands for a device that is no card of the catalogue.

    A card's own price comes first, then the one for all (or for its place), then the list price. Raises
    ProfileError for prices of other cards, and for a number of prices that fits no number of devices.
    """
    names = [gpu.name for gpu in devices if gpu is not None]
    for card in given.by_card:
        if not any(same_name(card, name) for name in names):
            raise ProfileError(
                "a price of a card that is not asked about",
                where=_WHERE,
                got=card,
                expected=f"one of {', '.join(names)}" if names else "--gpu with the card",
                nearest=nearest_name(card, names),
            )
    count = len(given.in_order)
    if count > 1 and count != len(devices):
        raise ProfileError(
            "as many prices as devices, or one for all",
            where=_WHERE,
            got=str(count),
            expected=f"1 or {len(devices)}" if len(devices) > 1 else "1",
        )
    ordered = given.in_order * len(devices) if count == 1 else given.in_order
    return [
        _price_of(given, gpu, ordered[place] if ordered else None)
        for place, gpu in enumerate(devices)
    ]


def _price_of(given: GivenPrices, gpu: Gpu | None, in_order: float | None) -> Price | None:
    of_cards = given.by_card.items() if gpu is not None else ()
    own = next((price for card, price in of_cards if gpu and same_name(card, gpu.name)), None)
    if own is not None or in_order is not None:
        return Price(own if own is not None else in_order or 0.0)
    listed = gpu.list_price if gpu is not None else None
    return None if listed is None else Price(listed.usd_per_hour, listed)
