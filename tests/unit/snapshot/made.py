"""A made-up training run: what a prediction says of it, and what a card would have recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ftbench.records.predicted_allocations import PredictedAllocations, PredictedPart
from ftbench.records.prediction import CellPrediction, PredictedBytes
from ftbench.snapshot.compare import compare
from ftbench.snapshot.result import Comparison
from ftbench.snapshot.snapshot_file import Snapshot, _Reader
from tests.simulated_snapshot import Act, Recorder, record, snapshot_of

LAYERS = 12
_HOME = "/home/user/project/"


def _sizes(layer: int) -> tuple[int, int, int]:
    """Return the bytes of a layer's weights, activation and scratch; layers are alike in pairs."""
    wide = 4_000_000 + 40_004 * (layer // 2)
    return wide, 1_500_000 + 4 * (layer % 2), 700_100


@dataclasses.dataclass(frozen=True)
class _Made:
    act: Act
    part: PredictedPart | None = None


def run(steps: int, *, evaluation: bool = False) -> list[_Made]:
    """Return the acts of a run: weights, then steps of a forward pass, a backward pass and an optimizer."""
    return list(_run(steps, evaluation=evaluation))


def _alloc(
    name: Any, nbytes: int, phase: str, step: int, role: str, module: str, operator: str, line: str
) -> _Made:
    part = PredictedPart(
        phase=phase, step=step, role=role, module=module, operator=operator, source=line
    )
    return _Made(Act(name, nbytes, 0, line and _HOME + line), part)


def _free(name: Any) -> _Made:
    return _Made(Act(name, frees=True))


def _run(steps: int, *, evaluation: bool) -> Iterator[_Made]:
    for layer in range(LAYERS):
        size = _sizes(layer)[0]
        yield _alloc(
            ("weight", layer), size, "setup", 0, "parameters", "layer.*", "to", "train.py:10"
        )
    for step in range(1, steps + 1):
        yield from _step(step)
    if evaluation:
        yield _alloc("eval", 900_000, "evaluation", steps, "inputs", "", "to", "train.py:50")
        for layer in range(LAYERS):
            yield _alloc(
                ("e", layer),
                _sizes(layer)[1],
                "evaluation",
                steps,
                "temporaries",
                "layer.*",
                "addmm",
                "model.py:21",
            )
            yield _free(("e", layer))


def _step(step: int) -> Iterator[_Made]:
    yield _alloc(("batch", step), 65_536, "input", step, "inputs", "", "to", "train.py:30")
    if step > 1:
        yield _free(("batch", step - 1))
    for layer in range(LAYERS):
        _, wide, scratch = _sizes(layer)
        yield _alloc(
            ("kept", step, layer),
            wide,
            "forward",
            step,
            "activations",
            "layer.*",
            "addmm",
            "model.py:21",
        )
        yield _alloc(
            ("scratch", step, layer),
            scratch,
            "forward",
            step,
            "temporaries",
            "layer.*",
            "gelu",
            "model.py:22",
        )
        yield _free(("scratch", step, layer))
    if step > 1:
        for layer in range(LAYERS):
            yield _free(("grad", step - 1, layer))
    for layer in reversed(range(LAYERS)):
        yield _alloc(
            ("grad", step, layer),
            _sizes(layer)[0],
            "backward",
            step,
            "gradients",
            "layer.*",
            "mm",
            "",
        )
        yield _free(("kept", step, layer))
    for layer in range(LAYERS):
        if step == 1:
            for moment in "mv":
                yield _alloc(
                    (moment, layer),
                    _sizes(layer)[0],
                    "optimizer",
                    step,
                    "optimizer state",
                    "layer.*",
                    "zeros_like",
                    "train.py:40",
                )
        yield _alloc(
            ("update", step, layer),
            _sizes(layer)[0],
            "optimizer",
            step,
            "temporaries",
            "",
            "_foreach_sqrt",
            "train.py:40",
        )
    for layer in range(LAYERS):
        yield _free(("update", step, layer))


def predicted(made: list[_Made]) -> PredictedAllocations:
    """Return what a prediction of these acts consists of."""
    rows: dict[Any, int] = {}
    names: dict[PredictedPart, int] = {}
    columns: list[tuple[int, int]] = []
    ended: list[int] = []
    for one in made:
        if one.act.frees:
            ended[rows.pop(one.act.name)] = len(columns)
            continue
        assert one.part is not None
        rows[one.act.name] = len(columns)
        columns.append((one.act.nbytes, names.setdefault(one.part, len(names))))
        ended.append(-1)
    return PredictedAllocations(
        nbytes=tuple(size for size, _ in columns),
        streams=(0,) * len(columns),
        ended=tuple(ended),
        parts=tuple(part for _, part in columns),
        part_names=tuple(names),
    )


def acts(made: list[_Made]) -> list[Act]:
    return [one.act for one in made]


def changed(made: list[Act], change: Callable[[Act], list[Act]]) -> list[Act]:
    """Return the acts with each replaced by what a change makes of it."""
    return [act for one in made for act in change(one)]


def read(*recorders: Recorder, **options: Any) -> Snapshot:
    """Return the snapshot of these devices, as it is read from a file."""
    return _Reader("made").snapshot(snapshot_of(*recorders, **options))


def exact(nbytes: int) -> PredictedBytes:
    return PredictedBytes(
        value_bytes=nbytes, low_bytes=nbytes, high_bytes=nbytes, certainty="exact"
    )


def prediction(allocations: PredictedAllocations, **fields: Any) -> CellPrediction:
    return CellPrediction(
        cell_id="made", source="traced", tensors=exact(1), allocations=allocations, **fields
    )


def compared(
    recorded: list[Act] | Recorder, allocations: PredictedAllocations | None = None, **options: Any
) -> Comparison:
    """Return the comparison of what a card recorded with the prediction of three steps."""
    recorder = recorded if isinstance(recorded, Recorder) else record(recorded)
    expected = allocations or predicted(run(3))
    return compare(read(recorder), 0, prediction(expected), **options)
