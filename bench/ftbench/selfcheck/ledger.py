"""The row of the ledger: the smoke profile on the card, with a model and texts of random words."""

from __future__ import annotations

from ftbench.execute.calibration import run_cells, workload_in
from ftbench.records.readings import Memory
from ftbench.records.record import Record
from ftbench.records.selfcheck import CheckedFigure, RowAnswer
from ftbench.selfcheck.rows import Row
from ftbench.selfcheck.setting import Setting

PROFILE = "smoke"


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return whether each cell ended, with figures that are nested as they must be."""
    engine = setting.engine()
    profile, grid = workload_in(
        setting.folder, engine, setting.placement, lambda _: None, profile=PROFILE, small=True
    )
    run = setting.folder / "run"
    records = run_cells(profile, grid, run, engine, setting.placement, _Quiet())
    reasons = [reason for record in records for reason in faults(record)]
    return RowAnswer(
        status="failed" if reasons else "ok",
        reason="; ".join(dict.fromkeys(reasons)),
        figures=(
            CheckedFigure(name="cells", unit="count", measured=len(records), agrees=not reasons),
            *_largest(records),
        ),
        notes=_absent(records),
        send=("run",),
    )


class _Quiet:
    """A listener that shows nothing."""

    def _nothing(self, *_: object) -> None: ...

    planned = preparing = started = progress = finished = set_aside = _nothing


def faults(record: Record) -> list[str]:
    """Return what is wrong with a record: it did not end, is not trusted, or its readings are not nested."""
    if record.measurement is None:
        message = record.failure.message if record.failure is not None else "no message"
        return [f"a cell ended as {record.status}: {' '.join(message.split())[:300]}"]
    found = [f"{name}: {reason}" for name, reason in record.untrusted.items()]
    for name, phase in record.measurement.phases.items():
        readings = _nested(phase.memory)
        if readings != sorted(readings):
            found.append(f"the readings of {name} are not nested: {readings}")
        if not readings or not readings[0]:
            found.append(f"nothing was allocated in {name}")
    return found


def _nested(memory: Memory) -> list[int]:
    readings = (
        memory.peak_allocated_bytes,
        memory.peak_reserved_bytes,
        memory.peak_process_bytes,
        memory.peak_device_bytes,
    )
    return [one for one in readings if one is not None]


def _largest(records: list[Record]) -> list[CheckedFigure]:
    """Return the readings of the cell with the largest allocated peak."""
    there = [record.measurement.memory for record in records if record.measurement is not None]
    if not there:
        return []
    most = max(there, key=lambda one: one.peak_allocated_bytes or 0)
    names = ("allocated", "reserved", "process", "device")
    return [
        CheckedFigure(name=name, unit="byte", measured=getattr(most, f"peak_{name}_bytes"))
        for name in names
    ]


def _absent(records: list[Record]) -> tuple[str, ...]:
    reasons = (
        reason
        for record in records
        if record.measurement is not None
        for name, reason in record.measurement.absent.items()
        if name in ("memory.peak_process_bytes", "memory.peak_device_bytes")
    )
    return tuple(dict.fromkeys(reasons))
