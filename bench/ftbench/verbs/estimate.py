"""Estimate: time, memory, cost and score of a run that was not made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from ftbench.verbs.asking import asked_of
from ftbench.verbs.cards import calibrated_gpus
from ftbench.verbs.given import attention_of, names_of, price_texts, whole_of
from ftbench.verbs.notebook import page_of
from ftbench.verbs.profiles import ProfileLike, profile_of

if TYPE_CHECKING:
    import os

    import pandas as pd

    from ftbench.estimation.estimate import Estimate
    from ftbench.plan.gpus import Gpu
    from ftbench.plan.profile import Profile
    from ftbench.records.prediction import AttentionKernel
    from ftbench.verbs.asking import Ask


@dataclasses.dataclass(frozen=True)
class EstimatedRun:
    """The estimate of a run on devices; a notebook shows it as tables."""

    estimate: Estimate

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per device and figure: `device`, `figure`, `value`, `low`, `high`, `interval`, `source`.

        The unit is the end of the figure's name. Without a value, `absent` is the reason.
        """
        import pandas as pd

        from ftbench.report.commands.estimate import estimate_json

        found = estimate_json(self.estimate)
        rows = [
            {"device": device["device"], "figure": name} | figure
            for device in found["devices"]
            for name, figure in (device["figures"] | {"score": found["score"]}).items()
        ]
        columns = ["device", "figure", "value", "low", "high", "interval", "source", "absent"]
        return pd.DataFrame(rows, columns=columns)

    @property
    def best(self) -> str | None:
        """Return the device that is best by money or time, among those that fit; None if none does."""
        from ftbench.estimation.ranking import ranked

        best = ranked(self.estimate).best
        return best.device if best else None

    def _repr_html_(self) -> str:
        from ftbench.estimation.ranking import ranked
        from ftbench.report.commands.estimate import device_table, headline
        from ftbench.report.commands.estimate_ranking import (
            decision_lines,
            ranking_lines,
            ranking_table,
        )
        from ftbench.report.commands.estimate_sentences import note_words

        found, ranking = self.estimate, ranked(self.estimate)
        lines = [*decision_lines(found, ranking), *headline(found)]
        tables = [device_table(device, found.score) for device in found.devices]
        if len(found.devices) > 1:
            tables = [ranking_table(ranking), *tables]
            lines += ranking_lines(ranking, found.score)
        return page_of(tables, [*lines, *map(note_words, found.notes)])


def estimate(
    profile: ProfileLike,
    *,
    gpu: str | Sequence[str] | None = None,
    usd_per_hour: float | str | Sequence[float] | Mapping[str, float] = (),
    train_size: SupportsIndex | None = None,
    max_length: SupportsIndex | None = None,
    batch: SupportsIndex | None = None,
    runs: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    attention: AttentionKernel | None = None,
    cache: bool = True,
) -> EstimatedRun:
    """Estimate time, memory, cost and accuracy of a run, each with an interval.

    `train_size` (examples), `max_length` (tokens) and `batch` (examples per device) select the run; without one,
    the largest value of the profile is taken. `gpu` names cards of the catalogue; without it, the estimate is for
    the machine of the measured runs in `runs` (`results/NAME` if that exists), or for a calibrated CPU.
    `usd_per_hour` is the price of all devices, of each in order, or of cards by name; without one, dated list
    prices are taken. Raises ProfileError, WorkloadError and RunDirectoryError.
    """
    given = {
        "train_size": whole_of("train_size", train_size),
        "max_length": whole_of("max_length", max_length),
        "per_device_train_batch_size": whole_of("batch", batch),
    }
    return EstimatedRun(
        estimated(
            profile_of(profile, settings),
            given,
            calibrated_gpus(names_of(gpu)),
            price_texts(usd_per_hour),
            None if runs is None else Path(runs),
            attention_of(attention, where="attention"),
            asked_of(cached=cache),
        )
    )


def estimated(
    profile: Profile,
    given: Mapping[str, int | None],
    gpus: Sequence[Gpu],
    usd_per_hour: Sequence[str],
    runs: Path | None,
    attention: AttentionKernel | None,
    ask: Ask,
) -> Estimate:
    """Return the estimate of the run that the values of axes select, on cards or on the devices that are known.

    `usd_per_hour` has prices as `given_prices` reads them, `ask` answers what must be predicted.
    """
    from ftbench.estimation import estimate as estimates
    from ftbench.estimation.calibrated_run import of_cpu, with_first
    from ftbench.estimation.prices import given_prices, prices_of
    from ftbench.execute.ranks import require_one_process
    from ftbench.plan.devices import cpu_name
    from ftbench.plan.sources import resolve_data, resolve_model
    from ftbench.records.calibration_files import FOLDER, read_calibrations
    from ftbench.records.prediction import PredictRequest
    from ftbench.report.commands.estimate import nothing_to_estimate_on

    calibrations = with_first(read_calibrations(FOLDER), cpu_name())
    model, data = resolve_model(profile.workload), resolve_data(profile.workload)
    target = estimates.target_of(profile, model, data, given)
    require_one_process((target.cell,), "estimate")
    folder = runs or Path("results") / profile.name
    known = estimates.read_measured(folder, target, asked=runs is not None)
    cards, on_cpu = estimates.devices_of(gpus, known, calibrations)
    if not cards and not on_cpu:
        raise nothing_to_estimate_on(known)
    prices = given_prices(usd_per_hour)
    measured = [estimates.card_of_device(one.device, calibrations) for one in known.evidence]
    prices_of(prices, gpus or measured or [None])  # before anything is predicted
    asked = PredictRequest(cells=(target.cell,), hypothetical=True)
    of_cards = {"gpus": tuple(cards), "largest_batch": True, "work": True, "attention": attention}
    of_this_cpu = {
        "on_cpu": True,
        "work": of_cpu(calibrations) is not None,
    }  # from which time follows
    return estimates.estimate(
        target,
        gpus,
        known,
        on_cards=ask(asked.model_copy(update=of_cards)).on_every_card() if cards else None,
        on_cpu=ask(asked.model_copy(update=of_this_cpu)) if on_cpu else None,
        prices=prices,
        calibrations=calibrations,
    )
