"""Timing: how often the time gate finds a slowdown, and how often it finds one that is not there.

From real runs of one and the same version, recorded one after the other: two that followed each other are a
pair, as runs of two versions are that alternate, with the one or the other first. Pairs are drawn anew, which
of a pair is the newer version by a coin, and the newer one's times are lengthened by the slowdown that is
planted. That the coin stands for something is told by the pairs as they were recorded: whether the second of a
pair is slower than the first.

    ftbench run quick --only max_length=32,per_device_train_batch_size=8 --set run.repeats=80 --out DIR
    python -m tests.mutations.timing DIR          writes the runs' times into this folder
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.measured import FALSE_ALARMS, TIMES, slowdown
from bench.store import RunDirectory

RECORDED = Path(__file__).with_name("recorded_times.csv")
PAIRS, DRAWS, PLANTED = 20, 2000, 1.05
FOUND_AT_LEAST = 0.9
_SEED = 6


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the time gate made of one figure: shares of the draws, and the order of pairs as recorded."""

    name: str
    runs: int
    spread: float  # standard deviation of one run, as a share
    found: float
    alarms: float
    order: float  # the second of a pair to the first, median ratio

    @property
    def holds(self):
        """Return whether the bars hold: found often enough, and no more false alarms than are said."""
        return self.found >= FOUND_AT_LEAST and self.alarms <= FALSE_ALARMS

    def __str__(self):
        """Return the figures in a sentence."""
        return (
            f"{self.name}: of {DRAWS:,} draws of {PAIRS} pairs from {self.runs} recorded runs (one run differs"
            f" from the next by {self.spread:.1%}; the second of a pair takes {self.order:.3f} times the first)"
            f" a slowdown of {PLANTED - 1:.0%} is found in {self.found:.1%}, and one that is not there in"
            f" {self.alarms:.1%}{'' if self.holds else '  MISSED'}"
        )


def judged(name):
    """Return what the time gate makes of the recorded runs, by one figure."""
    return judged_times(name, pd.read_csv(RECORDED)[name].to_numpy())


def judged_times(name, times, *, draws=DRAWS, pairs=PAIRS, planted=PLANTED):
    """Return the same for times in the order of their runs."""
    draw = np.random.default_rng(_SEED)
    couples = np.asarray(times, dtype=float)[: len(times) // 2 * 2].reshape(-1, 2)
    logs = np.log(couples[:, 1] / couples[:, 0])
    places = np.arange(pairs)
    found = alarms = 0
    for _ in range(draws):
        chosen = couples[draw.choice(len(couples), pairs, replace=False)]
        newer = draw.integers(0, 2, pairs)
        before, after = chosen[places, 1 - newer], chosen[places, newer]
        alarms += slowdown(before, after).p_value <= FALSE_ALARMS
        found += slowdown(before, planted * after).p_value <= FALSE_ALARMS
    return Judged(
        name=name,
        runs=len(times),
        spread=float(np.std(logs)) / 2**0.5,
        found=found / draws,
        alarms=alarms / draws,
        order=float(np.exp(np.median(logs))),
    )


def main(folder):
    """Write the times of a run directory's runs, in the order in which they began."""
    records = [r for r in RunDirectory.open(Path(folder)).survey()[0] if r.status == "ok"]
    rows = [
        {
            "started_at": record.started_at,
            "step_median_s": record.measurement.steps.median_s,
            "total_s": record.measurement.total_s,
        }
        for record in sorted(records, key=lambda one: one.started_at)
    ]
    pd.DataFrame(rows).to_csv(RECORDED, index=False)
    print(f"wrote {RECORDED}: {len(rows)} runs")


if __name__ == "__main__":
    main(sys.argv[1])
