"""Timing: how often the time gate finds a slowdown, and how often it finds one that is not there.

From real runs of one and the same version, recorded one after the other: two that followed each other are a
pair, as runs of two versions are that alternate, with the one or the other first. Pairs are drawn anew, which
of a pair is the newer version by a coin, and the newer one's times are lengthened by the slowdown that is
planted. That the coin stands for something is told by the pairs as they were recorded: whether the second of a
pair is slower than the first.

    ftbench run quick --set 'grid.train_size=[64]' --only max_length=32,per_device_train_batch_size=8 \
        --set run.repeats=64 --out DIR
    python -m tests.mutations.timing DIR          writes the runs' times into this folder
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ftbench.gating.compare_runs import FALSE_ALARMS, slowdown, told_apart
from ftbench.records.run_directory import RunDirectory

RECORDED = Path(__file__).with_name("recorded_times.csv")
FIGURES = (
    "step_min_s",
    "total_s",
)  # the first of each kind of `ftbench.gating.measured_runs.TIMES`
PAIRS, DRAWS, PLANTED = 20, 2000, 1.05
FOUND_AT_LEAST = 0.9
_SEED = 6


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the time gate made of recorded runs, by shares of the draws.

    `spread` is the standard deviation of one run as a share, `order` the median ratio of the second of a pair to
    the first: a value a figure.
    """

    runs: int
    spread: dict[str, float]
    found: float
    alarms: float
    order: dict[str, float]

    @property
    def holds(self):
        """Return whether the bars hold: found often enough, and no more false alarms than are said."""
        return self.found >= FOUND_AT_LEAST and self.alarms <= FALSE_ALARMS

    def __str__(self):
        """Return the figures in a sentence."""
        differ = ", ".join(
            f"{name}: one run differs from the next by {spread:.1%}, the second of a pair takes"
            f" {self.order[name]:.3f} times the first"
            for name, spread in self.spread.items()
        )
        return (
            f"time: of {DRAWS:,} draws of {PAIRS} pairs from {self.runs} recorded runs a slowdown of"
            f" {PLANTED - 1:.0%} is found in {self.found:.1%}, and one that is not there in {self.alarms:.1%}"
            f"{'' if self.holds else '  MISSED'} ({differ})"
        )


def judged():
    """Return what the time gate makes of the recorded runs."""
    table = pd.read_csv(RECORDED)
    return judged_times({name: table[name].to_numpy() for name in FIGURES})


def judged_times(times, *, draws=DRAWS, pairs=PAIRS, planted=PLANTED):
    """Return the same for times by figure, in the order of their runs; they are judged together."""
    draw = np.random.default_rng(_SEED)
    couples = {
        name: np.asarray(of, dtype=float)[: len(of) // 2 * 2].reshape(-1, 2)
        for name, of in times.items()
    }
    logs = {name: np.log(of[:, 1] / of[:, 0]) for name, of in couples.items()}
    count = len(next(iter(couples.values())))
    places = np.arange(pairs)
    found = alarms = 0
    for _ in range(draws):
        chosen, newer = draw.choice(count, pairs, replace=False), draw.integers(0, 2, pairs)
        sides = {
            name: (of[chosen][places, 1 - newer], of[chosen][places, newer])
            for name, of in couples.items()
        }
        alarms += bool(_slower(sides, 1.0))
        found += bool(_slower(sides, planted))
    return Judged(
        runs=2 * count,
        spread={name: float(np.std(of)) / 2**0.5 for name, of in logs.items()},
        found=found / draws,
        alarms=alarms / draws,
        order={name: float(np.exp(np.median(of))) for name, of in logs.items()},
    )


def _slower(sides, factor):
    """Return the figures by which the newer version, slowed down by a factor, is called slower."""
    return told_apart(
        {name: slowdown(before, factor * after).p_value for name, (before, after) in sides.items()}
    )


def main(folder):
    """Write the times of a run directory's runs, in the order in which they began."""
    records = [r for r in RunDirectory.open(Path(folder)).survey()[0] if r.status == "ok"]
    rows = [
        {
            "started_at": record.started_at,
            "step_min_s": record.measurement.steps.min_s,
            "total_s": record.measurement.total_s,
        }
        for record in sorted(records, key=lambda one: one.started_at)
    ]
    pd.DataFrame(rows).to_csv(RECORDED, index=False)
    print(f"wrote {RECORDED}: {len(rows)} runs")


if __name__ == "__main__":
    main(sys.argv[1])
