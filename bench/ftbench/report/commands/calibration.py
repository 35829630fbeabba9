"""A calibration as tables: the speed of a device's kernels, and its cells."""

from __future__ import annotations

from ftbench.base.units import format_bytes, format_seconds
from ftbench.estimation.calibrated_run import factor_of_cells
from ftbench.records.calibration import Calibration, MemoryTiming, ProductTiming
from ftbench.report.elements.table import ABSENT, Table

_UPDATES = {"lists": "AdamW's update, fused", "elementwise": "AdamW's update, by operators"}


def kernels_table(found: Calibration) -> Table:
    """Return the best rates of each kind of kernel, and what the host and the card add."""
    rows: list[tuple[str, str, str]] = []
    for dtype in dict.fromkeys(row.dtype for row in found.products):
        of = [row for row in found.products if row.dtype == dtype]
        best = max(of, key=_flops_per_s)
        rows.append(
            (f"products, {dtype}", f"{_flops_per_s(best) / 1e12:.3g} TFLOP/s", str(len(of)))
        )
    for kind, update in dict.fromkeys((row.kind, row.update) for row in found.memory):
        rows_of = [row for row in found.memory if (row.kind, row.update) == (kind, update)]
        large = max(rows_of, key=lambda row: row.nbytes)
        word = _UPDATES[kind] if update else str(kind)
        rows.append((word, _rate(large), str(len(rows_of))))
    for dtype, backward in dict.fromkeys((row.dtype, row.backward) for row in found.attention):
        rates = [
            row.flops / row.seconds
            for row in found.attention
            if (row.dtype, row.backward) == (dtype, backward)
        ]
        word = f"fused attention, {dtype}{', backward' if backward else ''}"
        rows.append((word, f"{max(rates) / 1e12:.3g} TFLOP/s", str(len(rates))))
    rows += _beside(found)
    return Table(
        title=f"{found.device.name}: torch {found.device.torch}, measured in {found.seconds:.0f} s",
        columns=("what", "at best, or on the largest", "measured"),
        rows=tuple(rows),
        numeric=(False, True, True),
    )


def _beside(found: Calibration) -> list[tuple[str, str, str]]:
    host, card = found.host, found.card
    figures = [
        ("host, per kernel of a pass", format_seconds(host.passes_s)),
        ("host, per kernel of an update", format_seconds(host.update_s)),
        ("CUDA context", ABSENT if card.context_bytes is None else format_bytes(card.context_bytes)),
        ("NCCL, one communicator", ABSENT if card.nccl_bytes is None else format_bytes(card.nccl_bytes)),
        ("clock under load", ABSENT if card.clock_hz is None else f"{card.clock_hz / 1e6:.0f} MHz"),
        ("power under load", ABSENT if card.power_watts is None else f"{card.power_watts:.0f} W"),
    ]  # fmt: skip
    return [(name, text, "") for name, text in figures if text != ABSENT]


def _flops_per_s(row: ProductTiming) -> float:
    return 2 * row.batch * row.m * row.n * row.k / row.seconds


def _rate(row: MemoryTiming) -> str:
    return f"{row.nbytes / row.seconds / 1e9:.3g} GB/s"


def cells_table(found: Calibration) -> Table:
    """Return the cells that were run, the time of their steps both ways, and the interval that follows."""
    rows = [
        (
            cell.name,
            format_seconds(cell.predicted_step_s),
            format_seconds(cell.measured_step_s),
            f"{cell.predicted_step_s / cell.measured_step_s - 1:+.1%}",
        )
        for cell in found.cells
    ]
    factor = factor_of_cells(found.cells)
    return Table(
        title=f"Steps, predicted and measured; times on this device have a factor of {factor:.2f} up and down",
        columns=("batch x length", "predicted", "measured", "difference"),
        rows=tuple(rows),
        numeric=(False, True, True, True),
    )
