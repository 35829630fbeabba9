"""Timing: how often the time gate finds a slowdown, and how often it finds one that is not there.

From real runs of one and the same version, recorded one after the other: two that followed each other are a
pair, as runs of two versions are that alternate. Pairs are drawn anew, which of a pair is the newer version
by a coin, and the newer one's times are lengthened by the slowdown that is planted.

    ftbench run quick --only max_length=32,per_device_train_batch_size=8 --set run.repeats=80 --out DIR
    python -m tests.mutations.timing DIR          writes the runs' times into this folder
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.measured import FALSE_ALARMS, TIMES, slowdown
from bench.store import RunDirectory

RECORDED = Path(__file__).with_name("recorded_times.csv")
PAIRS, SAMPLES, PLANTED = 20, 400, 1.05
_SEED = 6


def recorded():
    """Return the times of runs in the order in which they began, a column a figure."""
    return pd.read_csv(RECORDED)


def shares(times, *, pairs=PAIRS, samples=SAMPLES, planted=PLANTED):
    """Return (how often the planted slowdown is found, how often one is found without it)."""
    draw = np.random.default_rng(_SEED)
    couples = np.asarray(times, dtype=float)[: len(times) // 2 * 2].reshape(-1, 2)
    caught = alarms = 0
    for _ in range(samples):
        chosen = couples[draw.choice(len(couples), pairs, replace=False)]
        newer = draw.integers(0, 2, pairs)
        places = np.arange(pairs)
        before, after = chosen[places, 1 - newer], chosen[places, newer]
        alarms += slowdown(before, after).p_value <= FALSE_ALARMS
        caught += slowdown(before, planted * after).p_value <= FALSE_ALARMS
    return caught / samples, alarms / samples


def lines():
    """Yield what is printed of each figure."""
    table = recorded()
    for name in TIMES:
        times = table[name].to_numpy()
        caught, alarms = shares(times)
        spread = float(np.std(np.diff(np.log(times))[::2])) / 2**0.5
        yield (
            f"{name}: of {SAMPLES} draws of {PAIRS} pairs from {len(times)} recorded runs (one run differs by"
            f" {spread:.1%} from the next) a slowdown of {PLANTED - 1:.0%} is found in {caught:.1%},"
            f" and one that is not there in {alarms:.1%}"
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
