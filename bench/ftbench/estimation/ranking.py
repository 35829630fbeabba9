"""Ranking: the devices of an estimate, the best first, and those that cannot be told from the best. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate, Estimate
from ftbench.estimation.reasons import KernelTimes

By = Literal["cost_usd", "time_s"]
# Why devices do not differ more: the host that starts kernels decides on all of them; or a run is mostly its start
# and its checkpoints; or nothing of that kind, and the intervals are as wide as they are.
Cause = Literal["host-bound", "too small", "uncertain"]
_ORDER = {"fits": 0, "too close to call": 1, "does not fit": 2}
_MOST = 0.5  # a share of a time that is most of it


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Devices in order: those that the run fits on, those that it may fit on, those that it does not.

    Each of these classes is ordered by money if a device of the first class that is not empty has a price, else
    by time. `tied` are those behind the first whose interval overlaps the first one's; `causes` say why. Devices
    that do not fit, or without a figure, are never tied. `perhaps` would be better than the first by more than
    their intervals, but the run may not fit on them.
    """

    by: By
    devices: tuple[DeviceEstimate, ...]
    tied: tuple[str, ...]
    causes: tuple[Cause, ...]
    perhaps: tuple[str, ...] = ()

    @property
    def best(self) -> DeviceEstimate | None:
        """Return the first device, if the run fits on it and it has a figure."""
        first = self.devices[0] if self.devices else None
        usable = first is not None and first.verdict != "does not fit" and _value(first, self.by)
        return first if usable else None

    @property
    def usable(self) -> tuple[DeviceEstimate, ...]:
        """Return the devices that the run fits on, or may fit on."""
        return tuple(one for one in self.devices if one.verdict != "does not fit")


def figure_of(device: DeviceEstimate, name: str) -> EstimatedFigure | None:
    """Return a device's figure with a value; None if it is absent."""
    found = next((one for one in device.figures if one.name == name), None)
    return None if found is None or found.value is None else found


def _value(device: DeviceEstimate, name: str) -> float | None:
    found = figure_of(device, name)
    return None if found is None else found.value


def ranked(found: Estimate) -> Ranking:
    """Return the ranking of an estimate's devices."""
    by: By = "cost_usd" if _any_priced(found.devices) else "time_s"
    order = sorted(found.devices, key=lambda one: _key(one, by))
    ranking = Ranking(by, tuple(order), (), ())
    best = ranking.best
    if best is None:
        return ranking
    tied = [one for one in order[1:] if _reaches(one, best, by) and _reaches(best, one, by)]
    better = [one for one in order[1:] if _reaches(one, best, by) and not _reaches(best, one, by)]
    return dataclasses.replace(
        ranking,
        tied=tuple(one.device for one in tied),
        causes=_causes([best, *tied]) if tied else (),
        perhaps=tuple(one.device for one in better),
    )


def _any_priced(devices: Sequence[DeviceEstimate]) -> bool:
    """Return whether money is known for a device of the best class of fit that is not empty."""
    best = min(map(_fit, devices), default=0)
    return best < _ORDER["does not fit"] and any(
        _value(one, "cost_usd") is not None for one in devices if _fit(one) == best
    )


def _fit(device: DeviceEstimate) -> int:
    """Return how badly the run fits on a device; where memory is not known, as where it fits."""
    return _ORDER.get(device.verdict or "fits", 0)


def _key(device: DeviceEstimate, by: By) -> tuple[int, bool, float, float]:
    """Return what devices are ordered by: whether it fits and the figure is known; the figure, the time."""
    value, time = _value(device, by), _value(device, "time_s")
    return (
        _fit(device),
        value is None,
        value if value is not None else 0.0,
        time if time is not None else float("inf"),
    )


def _reaches(device: DeviceEstimate, other: DeviceEstimate, by: By) -> bool:
    """Return whether the low end of a device's figure is not above the high end of another's."""
    own, its = figure_of(device, by), figure_of(other, by)
    if "does not fit" in (device.verdict, other.verdict) or own is None or its is None:
        return False
    assert own.low is not None
    assert its.high is not None
    return own.low <= its.high


def _causes(devices: list[DeviceEstimate]) -> tuple[Cause, ...]:
    sources = [figure.source for one in devices if (figure := figure_of(one, "time_s")) is not None]
    kernels = [source for source in sources if isinstance(source, KernelTimes)]
    found: list[Cause] = []
    if kernels and all(one.host_share > _MOST for one in kernels):
        found.append("host-bound")
    if kernels and all(one.beside_share > _MOST for one in kernels):
        found.append("too small")
    return tuple(found) or ("uncertain",)
