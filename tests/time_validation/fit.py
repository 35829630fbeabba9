"""The constants of the model of a step's time, fitted on published steps, with any of them left out.

Each constant has a prior, most of them from measurements of single kernels, and the fit moves it in logarithms.
Rows of one card and source count as the square root of their number, since their errors are the card's and the
source's; a row far off counts less (soft L1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import least_squares

from ftbench.estimation.kernel_time import Steps
from ftbench.estimation.time_constants import TimeConstants

# Start, and standard deviation in logarithms.
PRIORS: Mapping[str, tuple[float, float]] = {
    "plain_share": (0.74, 0.15),
    "tf32_share": (0.80, 0.15),
    "tensor_share": (0.88, 0.10),
    "early_tensor_share": (0.80, 0.10),
    "geforce_clock": (1.1, 0.05),
    "plain_tile_edge": (200, 0.5),
    "tensor_tile_edge": (1100, 0.3),
    "plain_depth_overhead": (60, 0.7),
    "tensor_depth_overhead": (180, 0.2),
    "product_start_s": (4e-6, 0.3),
    "product_bandwidth_share": (0.78, 0.1),
    "bandwidth_share": (0.9, 0.1),
    "bytes_per_cycle": (30, 0.5),
    "kernel_start_s": (2e-6, 0.4),
    "attention_share": (0.4, 0.4),
    "host_s": (20e-6, 0.7),
    "host_update_s": (10e-6, 0.5),
    "old_software": (1.05, 0.1),
    "tensor_power_share": (0.2, 0.4),
    "pascal": (18, 0.3),
    "turing": (13, 0.3),
    "ga10x": (7, 0.4),
    "ada": (5.9, 0.3),
}
_TYPICAL_ERROR = 0.12
_FAR_OFF = 1.5  # typical errors


def constants_of(values: Mapping[str, float]) -> TimeConstants:
    """Return constants by the names of `PRIORS`."""
    generations = ("pascal", "turing", "ga10x", "ada")
    own = {name: value for name, value in values.items() if name not in generations}
    # No card of Blackwell's process for workstations was measured: its need is taken for Ada's.
    watts = {name: values[name] for name in generations} | {"blackwell": values["ada"]}
    return TimeConstants(**own, watts_per_tflops=watts)


def fit(
    steps: Steps, seconds: np.ndarray, weights: np.ndarray, start: np.ndarray | None = None
) -> tuple[np.ndarray, TimeConstants]:
    """Return the logarithms of the constants, and the constants, that fit steps of these seconds best."""
    names = list(PRIORS)
    centre = np.log([PRIORS[name][0] for name in names])
    width = np.array([PRIORS[name][1] for name in names])
    target = np.log(seconds)

    def residuals(x: np.ndarray) -> np.ndarray:
        of = constants_of(dict(zip(names, np.exp(x).tolist(), strict=True)))
        errors = np.log(steps.seconds(of).total) - target
        return np.concatenate([weights * errors / _TYPICAL_ERROR, (x - centre) / width])

    found = least_squares(
        residuals,
        centre if start is None else start,
        loss="soft_l1",
        f_scale=_FAR_OFF,
        diff_step=1e-3,
        max_nfev=40 if start is None else 12,
    )
    return found.x, constants_of(dict(zip(names, np.exp(found.x).tolist(), strict=True)))


def weights_of(groups: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return the weight of each row, by its card and source: n rows alike count as sqrt(n)."""
    sizes = Counter(groups)
    return np.array([sizes[group] ** -0.25 for group in groups])


def left_out(
    steps: Steps, seconds: np.ndarray, weights: np.ndarray, groups: Sequence[str]
) -> np.ndarray:
    """Return the seconds of each step by constants that were fitted without any step of its group."""
    start, _ = fit(steps, seconds, weights)
    predicted = np.empty(len(seconds))
    for group in dict.fromkeys(groups):
        mine = np.array([one == group for one in groups])
        _, constants = fit(steps, seconds, np.where(mine, 0.0, weights), start)
        predicted[mine] = steps.seconds(constants).total[mine]
    return predicted


def quantile(errors: np.ndarray, level: float = 0.9) -> float:
    """Return the quantile of absolute errors, corrected for finite samples as conformal intervals are."""
    ordered = np.sort(np.abs(errors))
    place = min(len(ordered), math.ceil((len(ordered) + 1) * level))
    return float(ordered[place - 1])
