"""A test of a rule of thumb about memory: makes the predictions for it, and writes the page with the results.

"Memory grows roughly quadratically with sequence length and linearly with the number of parameters."
`python -m studies.memory_claim.__main__` (`nox -s claim`) predicts the cells of three profiles and writes
`reports/attention-scaling/`. The same libraries give the same page to the byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from ftbench.base.errors import PredictionError, RunDirectoryError
from ftbench.execute.engines.base import Engine
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.prediction_worker import forecast, processes
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.plan.gpus import find_gpu
from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import load_profile
from ftbench.plan.resolve import resolve
from ftbench.records.messages import Progress
from ftbench.records.prediction import CellPrediction, Predictions, PredictRequest
from ftbench.report.render.terminal import phases_on
from ftbench.report.write import write_report
from studies.memory_claim.growth import (
    ClaimData,
    CpuPeak,
    Option,
    Peak,
    SeriesOf,
    SeriesSetting,
    Size,
    parameters_of,
    peak_of,
    series_of,
    setting_of,
)
from studies.memory_claim.page import page

DISTILBERT = "attention-scaling"
MODERNBERT = "attention-scaling-modernbert"
SIZES = "model-sizes"
OUT = Path("reports") / DISTILBERT
# Written by `ftbench report RUN_DIR --out reports/attention-scaling/measured --format csv`.
MEASURED = OUT / "measured" / "cells.csv"
MEASURED_TRAIN_SIZE = 8
CARDS = ("t4", "a100-80gb")

# Layers and width; a head has 64 dimensions, the feed-forward layer four times the width. The four small sizes
# are from Turc et al. 2019, "Well-Read Students Learn Better", with the names of google-research/bert's
# README; the others from Devlin et al. 2019.
FAMILY = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
# Sizes that differ from base only in depth, or only in width.
DEPTHS = tuple((layers, 768) for layers in (2, 4, 8))
WIDTHS = tuple((12, width) for width in (128, 256, 512))

# Other optimizers and precisions, with and without many activations.
OPTIONS = {
    "adamw, float32": (),
    "adamw, bfloat16 autocast": ("training.bf16=true",),
    "adafactor, float32": ("training.optim=adafactor",),
    "sgd, float32": ("training.optim=sgd",),
}
OPTION_CELLS = (
    "grid.max_length=[64, 512]",
    "grid.per_device_train_batch_size=8",
    "grid.train_size=64",
    "grid.attn_implementation=sdpa",
    "grid.gradient_checkpointing=false",
)


def gather(engine: Engine, on_progress: Callable[[Progress], None] = lambda _: None) -> ClaimData:
    """Return all predictions for the page; raises PredictionError if a cell cannot be predicted."""

    def ask(cells: Sequence[Cell], cards: Iterable[str] = (), **how: bool) -> Predictions:
        request = PredictRequest(
            cells=tuple(cells),
            gpus=tuple(map(find_gpu, cards)),
            explain=True,
            processes=processes(),
            **{"data_at_hand": False, **how},
        )
        answer = forecast(request, engine, on_progress=on_progress)
        if answer.refused:
            raise PredictionError(answer.refused[0].reason)
        return answer

    lengths = [*cells_of(load_profile(DISTILBERT)), *cells_of(load_profile(MODERNBERT))]
    options = {name: _option_cells(overrides) for name, overrides in OPTIONS.items()}
    padded = ask(lengths, CARDS)
    others = ask([cell for cells in options.values() for cell in cells])
    shapes = {name: _shape_cells(*shape) for name, shape in _shapes().items()}
    fused = [cell for cell in lengths if _fused(cell)]
    full = ask([*fused, *(c for cells in shapes.values() for c in cells)], full_batches=True)
    small = [cell for cell in lengths if cell.train_size == MEASURED_TRAIN_SIZE]
    # As in the pass that measures tensors: the longest examples, which fill their batches.
    on_cpu = ask(small, on_cpu=True, data_at_hand=True, full_batches=True)
    sizes = {name: _size(name, cells, full) for name, cells in shapes.items()}
    return ClaimData(
        series=_series(lengths, padded, fused, full),
        family=tuple(sizes[name] for name in FAMILY),
        depths=_along(sizes, DEPTHS),
        widths=_along(sizes, WIDTHS),
        options=tuple(_option(name, cells, others) for name, cells in options.items()),
        beside=tuple(
            CpuPeak(
                setting_of(cell, padded=True),
                cell.max_length,
                cell.cell_id,
                _of(on_cpu, cell).tensors.value_bytes,
            )
            for cell in small
        ),
        versions=padded.versions,
    )


def _fused(cell: Cell) -> bool:
    """Return whether full batches of a cell differ: with sdpa, it has a mask only if there is padding."""
    checkpointing = cell.settings.get("gradient_checkpointing", False)
    return cell.attn_implementation == "sdpa" and not checkpointing


def cells_of(profile: Profile) -> tuple[Cell, ...]:
    """Return the cells of a profile."""
    return resolve(profile).cells


def size_overrides(layers: int, width: int) -> tuple[str, ...]:
    """Return the overrides of `model-sizes` for a shape."""
    fields = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 64,
    }
    return tuple(f"workload.config.{name}={value}" for name, value in fields.items())


def _shape_cells(layers: int, width: int) -> tuple[Cell, ...]:
    return cells_of(load_profile(SIZES, size_overrides(layers, width)))


def _shapes() -> dict[str, tuple[int, int]]:
    """Return the shapes of all sizes, by name."""
    return FAMILY | {f"{layers}/{width}": (layers, width) for layers, width in (*DEPTHS, *WIDTHS)}


def _along(sizes: dict[str, Size], shapes: Sequence[tuple[int, int]]) -> tuple[Size, ...]:
    """Return the sizes of some shapes, with base as the last."""
    return (*(sizes[f"{layers}/{width}"] for layers, width in shapes), sizes["base"])


def _option_cells(overrides: Sequence[str]) -> tuple[Cell, ...]:
    """Return two cells of `attention-scaling`: one with almost only model state, one with many activations."""
    return cells_of(load_profile(DISTILBERT, (*OPTION_CELLS, *overrides)))


def _of(predictions: Predictions, cell: Cell) -> CellPrediction:
    found = predictions.of(cell.cell_id)
    assert found is not None, cell
    return found


def _series(
    lengths: Sequence[Cell], padded: Predictions, fused: Sequence[Cell], full: Predictions
) -> SeriesOf:
    def peaks(
        cells: Sequence[Cell], predictions: Predictions, *, padding: bool
    ) -> Iterable[tuple[SeriesSetting, Peak]]:
        for cell in cells:
            yield setting_of(cell, padded=padding), peak_of(cell, _of(predictions, cell))

    return series_of([*peaks(lengths, padded, padding=True), *peaks(fused, full, padding=False)])


def _size(name: str, cells: Sequence[Cell], predictions: Predictions) -> Size:
    peaks = {
        (cell.per_device_train_batch_size, cell.max_length): peak_of(cell, _of(predictions, cell))
        for cell in cells
    }
    layers, width = _shapes()[name]
    size = Size(name, layers, width, 0, peaks)
    return Size(name, layers, width, parameters_of(size.floor), peaks)


def _option(name: str, cells: Sequence[Cell], predictions: Predictions) -> Option:
    small, large = (peak_of(cell, _of(predictions, cell)) for cell in cells)
    return Option(name, small, large)


def measured_tensors(file: Path) -> dict[str, int]:
    """Return the measured peak of CPU tensors by cell id, from a report's `cells.csv`; the largest of all runs.

    Empty if there is no such file. Raises RunDirectoryError if the columns are missing.
    """
    if not file.is_file():
        return {}
    table = pd.read_csv(file, dtype={"cell_id": str})
    columns = ["cell_id", "peak_cpu_tensors_bytes"]
    if not set(columns) <= set(table):
        raise RunDirectoryError(
            "not a table of cells", where=str(file), expected=", ".join(columns)
        )
    peaks = table[columns].dropna().groupby("cell_id")["peak_cpu_tensors_bytes"].max()
    return {str(cell_id): int(nbytes) for cell_id, nbytes in peaks.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page: `python -m studies.memory_claim.__main__ [--out DIR] [--measured CELLS.csv]`."""
    parser = argparse.ArgumentParser("python -m studies.memory_claim.__main__", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument("--measured", type=Path, default=MEASURED, metavar="CELLS.csv")
    asked = parser.parse_args(arguments)
    engine = LocalEngine("spawn", Placement(kind="cpu").environment)
    measured = measured_tensors(asked.measured)
    with phases_on(sys.stderr) as show:
        answers = gather(engine, show)
    write_report(page(answers, measured), asked.out, ("md",))


if __name__ == "__main__":
    main()
