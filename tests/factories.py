"""Small, valid values for tests, with whatever a test wants to be different."""

import math
from typing import Any

import pandas as pd

from ftbench.plan.cell import Cell
from ftbench.plan.grid import Grid, expand
from ftbench.plan.profile import Profile, TaskName
from ftbench.plan.profile_file import build_profile
from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.plan.sources import DataSource, ModelSource, Source
from ftbench.records.environment import Device, Environment
from ftbench.records.measurement import Measurement, RankMeasurement, RunWarning
from ftbench.records.messages import Preparation, TokenisedPools
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    CellWork,
    Composition,
    MemoryBreakdown,
    Moment,
    Part,
    PassWork,
    PredictedBytes,
    Predictions,
    Share,
)
from ftbench.records.readings import Load, Memory, Phase, StepSummary
from ftbench.records.record import Record
from ftbench.records.scores import Score, share_variance

MODEL_SOURCE = Source(reference="m", kind="path", location="/m", revision="sha256:m")
DATA_SOURCE = Source(reference="d", kind="path", location="/d", revision="sha256:d")


def profile_data(**changes: Any) -> dict[str, Any]:
    """Return a profile's plain data: 2 lengths x 2 batches x 1 size; tables are merged."""
    data: dict[str, Any] = {
        "name": "test",
        "workload": {"model": "offline:minilm-l6", "dataset": "offline:imdb", "eval_size": 8},
        "grid": [
            {"max_length": [16, 32], "per_device_train_batch_size": [4, 8], "train_size": [16]}
        ],
        "training": {},
        "run": {},
    }
    for key, value in changes.items():
        data[key] = data[key] | value if isinstance(data.get(key), dict) else value
    return data


def profile(**changes: Any) -> Profile:
    """Return a valid profile."""
    return build_profile(profile_data(**changes), where="test.toml")


def model_source(**changes: Any) -> ModelSource:
    fields = {"source": MODEL_SOURCE, "tokenizer": MODEL_SOURCE, "weights": "pretrained"}
    return ModelSource(**(fields | changes))


def data_source(**changes: Any) -> DataSource:
    fields = {
        "source": DATA_SOURCE,
        "text_column": "text",
        "label_column": "label",
        "drop_duplicates": False,
        "balanced": False,
        "train_split": "train",
        "eval_split": "auto",
        "eval_size": 8,
        "shuffle_seed": 42,
    }
    return DataSource(**(fields | changes))


def task(name: TaskName = "text-classification", **changes: Any) -> Any:
    """Return a task, of a data set with these settings."""
    from ftbench.worker.tasks.tasks import task_of  # imports torch and transformers

    return task_of(data_source(task=name, **changes))


def grid(**changes: Any) -> Grid:
    """Return the grid of a valid profile over made-up sources."""
    return expand(profile(**changes), model_source(), data_source())


def cell(**axes: Any) -> Cell:
    """Return one cell with these axis values."""
    block = {"max_length": 16, "per_device_train_batch_size": 4, "train_size": 16} | axes
    return grid(grid=[{name: [value] for name, value in block.items()}]).cells[0]


def device(**changes: Any) -> Device:
    return Device(**({"kind": "cpu", "name": "a processor", "threads": 2} | changes))


def environment(**changes: Any) -> Environment:
    fields = {
        "python": "3.11.0",
        "platform": "Linux",
        "packages": {"torch": "2.13.0"},
        "cpu": "a processor",
        "cores": 2,
        "memory_bytes": 2**34,
        "device": device(),
    }
    return Environment(**(fields | changes))


def preparation(**changes: Any) -> Preparation:
    fields = {
        "environment": environment(),
        "labels": ("neg", "pos"),
        "parameters": 1000,
        "train_pool": 100,
        "eval_pool": 50,
        "eval_split": "test",
        "tokenised": {
            f"max_length-{n}": TokenisedPools(train="t", evaluation="e") for n in (16, 32)
        },
        "flops": (0, 10, 1),
        "peak_matmul_flops": {"float32": 1e9},
    }
    return Preparation(**(fields | changes))


def measurement(*, memory: dict[str, int] | None = None, **changes: Any) -> Measurement:
    """Return a measurement of a cell that took 10 s, with a step of 0.5 s."""
    peaks = Memory(**({"peak_rss_bytes": 2**30} if memory is None else memory))
    step_s = changes.pop("step_median_s", 0.5)
    walls = {"load": 1.0, "first_steps": 1.0, "train": 5.0, "evaluation": 2.0, "save": 1.0}
    # Whole: every invariant of `ftbench.records.invariants` holds, whatever the step time asked for.
    walls["train"] = max(5.0, 10 * step_s)
    total_s = changes.get("total_s", sum(walls.values()))
    walls["save"] += total_s - sum(walls.values())
    phases = {n: Phase(wall_s=s, cpu_s=s, entries=1, memory=peaks) for n, s in walls.items()}
    phases["train"] = phases["train"].model_copy(update={"samples": 80})
    fields: dict[str, Any] = {
        "epochs": (),
        "sources": {"peak_rss_bytes": "VmHWM"},
        "worker_s": 10.0,
        "metering_s": 0.0,
        "total_s": total_s,
        "train_s": walls["first_steps"] + walls["train"],
        "train_loss": 0.6,
        "eval_loss": 0.5,
        "load": Load(average_start=0, average_end=0, others_cpu_share=0, steal_share=0),
        "peak_matmul_flops": 1e9,
    }
    of_rank: dict[str, Any] = {
        "device": device(),
        "model_device": "cpu",
        "phases": phases,
        "memory": peaks,
        "idle": Memory(peak_rss_bytes=2**28),
        "sampling": None,
        "steps": StepSummary(
            count=10,
            warmup_steps=2,
            median_low_s=step_s,
            median_high_s=step_s,
            seconds=10 * step_s,
            samples=80,
            median_s=step_s,
            q1_s=step_s,
            q3_s=step_s,
            data_wait_median_s=0.0,
            samples_per_s=8 / step_s,
            real_tokens_per_s=100 / step_s,
            padded_tokens_per_s=128 / step_s,
            flops_per_s=5e8,
            mfu=0.5,
        ),
    }
    own = {name: changes.pop(name) for name in list(changes) if name in of_rank}
    accuracy = changes.pop("eval_accuracy", 0.75)
    fields["scores"] = () if accuracy is None else (score(value=accuracy),)
    ranks = (RankMeasurement(**(of_rank | own)),)
    return Measurement(**(fields | {"ranks": ranks} | changes))


def evaluated(table: pd.DataFrame, examples: int | None) -> pd.DataFrame:
    """Return a table of cells whose accuracies are of so many examples; without a number, of unknown error."""

    def error(accuracy: float) -> float | None:
        there = examples and 0 <= accuracy <= 1
        return math.sqrt(share_variance(accuracy, examples)) if there else None

    return table.assign(score_se=[error(value) for value in table["eval_accuracy"].fillna(-1)])


def score(
    name: str = "accuracy", value: float = 0.75, *, examples: int = 8, **changes: Any
) -> Score:
    """Return a score of these evaluation examples, where guessing gives 0.1."""
    share = SCORE_KINDS[name].scale == "share" and 0 <= value <= 1
    error = math.sqrt(share_variance(value, examples)) if share else None
    fields: dict[str, Any] = {
        "name": name,
        "value": value,
        "higher_is_better": SCORE_KINDS[name].higher_is_better,
        "standard_error": error,
        "guess": 0.1,
    }
    return Score(**(fields | changes))


def run_warning(message: str = "the machine was busy", name: str = "others_busy") -> RunWarning:
    return RunWarning(name=name, message=message, value=0.2, threshold=0.1)


def record(of: Cell | None = None, *, replicate: int = 0, **changes: Any) -> Record:
    """Return the record of a cell that finished."""
    of = of or cell()
    fields: dict[str, Any] = {
        "cell_id": of.cell_id,
        "replicate": replicate,
        "seed": of.seed + replicate,
        "cell": of,
        "axes": ("max_length", "per_device_train_batch_size", "train_size"),
        "status": "ok",
        "environment_id": environment().environment_id,
        "started_at": "2026-11-24T00:00:00+00:00",
        "measurement": measurement(),
    } | changes
    measured = fields["measurement"]
    fields.setdefault("wall_s", measured.total_s + 0.5 if measured else 10.5)
    return Record(**fields)


MIB = 2**20


def figure(
    value: int, low: int | None = None, high: int | None = None, certainty: Any = "simulated"
) -> PredictedBytes:
    """Return a figure in MiB; without an interval low and high are its value."""
    ends = (value if low is None else low, value if high is None else high)
    low_bytes, high_bytes = (end * MIB for end in ends)
    return PredictedBytes(
        value_bytes=value * MIB, low_bytes=low_bytes, high_bytes=high_bytes, certainty=certainty
    )


def predicted_card(gpu: str = "t4", **changes: Any) -> CardPrediction:
    """Return what a cell needs on one card, which it fits on."""
    fields: dict[str, Any] = {
        "gpu": gpu,
        "requested": figure(100),
        "allocated": figure(110),
        "reserved": figure(120, 116, 124),
        "process": figure(620, 416, 924, certainty="interval"),
        "capacity_low_bytes": 14000 * MIB,
        "capacity_high_bytes": 15000 * MIB,
        "verdict": "fits",
    }
    return CardPrediction(**(fields | changes))


def composition(**changes: Any) -> Composition:
    """Return what a peak of 90 MiB consists of, over a timeline of ten events."""
    fields: dict[str, Any] = {
        "moment": Moment(phase="backward", step=2, module="layer", operator="aten::mm"),
        "roles": (
            Share(name="parameters", nbytes=60 * MIB),
            Share(name="activations", nbytes=30 * MIB),
        ),
        "modules": (Share(name="layer", nbytes=90 * MIB),),
        "operators": (Share(name="aten::mm", nbytes=90 * MIB),),
        "timeline": tuple((event, 9 * (event + 1) * MIB) for event in range(10)),
        "phases": ((0, "setup"), (3, "step 1")),
    }
    return Composition(**(fields | changes))


def pass_work(documents: int = 8, **changes: Any) -> PassWork:
    """Return the work of one batch of these documents: 1 GFLOP each."""
    fields: dict[str, Any] = {
        "documents": documents,
        "batches": 1,
        "flops": documents * 10**9,
        "product_bytes": 10**8,
        "other_bytes": 10**8,
        "compulsory_bytes": 10**7,
        "kernels": 100,
    }
    return PassWork(**(fields | changes))


def cell_work(**changes: Any) -> CellWork:
    """Return the work of a cell."""
    fields: dict[str, Any] = {
        "step": pass_work(),
        "evaluation": pass_work(16, batches=2, flops=16 * 10**9 // 4),
        "checkpoint_bytes": 10**8,
    }
    return CellWork(**(fields | changes))


def predicted_cell(cell_id: str, *gpus: str, **changes: Any) -> CellPrediction:
    """Return the prediction of a cell, on these cards."""
    fields: dict[str, Any] = {
        "cell_id": cell_id,
        "source": "traced",
        "tensors": figure(90, certainty="exact"),
        "cards": tuple(map(predicted_card, gpus)),
    }
    return CellPrediction(**(fields | changes))


def part(
    operator: str = "aten::mm",
    nbytes: int | dict[str, int] = 30 * MIB,
    *,
    role: str = "activations",
    module: str = "layer.*",
    dtype: str = "float32",
    source: str = "",
) -> Part:
    """Return a part of memory; a number of bytes is at the peak and the most."""
    marks = {"peak": nbytes, "most": nbytes} if isinstance(nbytes, int) else nbytes
    return Part(
        role=role, module=module, operator=operator, dtype=dtype, nbytes=marks, source=source
    )


def breakdown(*parts: Part, phase: str = "backward", operator: str = "aten::mm") -> MemoryBreakdown:
    """Return the parts of a peak that is reached in this phase and operator."""
    moment = Moment(phase=phase, step=3, module="layer", operator=operator)
    return MemoryBreakdown(moment=moment, parts=parts or (part(),))


def predictions(
    of: Grid,
    *gpus: str,
    explain: bool = False,
    work: bool = False,
    parts: bool = False,
    **changes: Any,
) -> Predictions:
    """Return predictions for every cell of a grid."""
    explained = composition() if explain else None
    asked = {
        "composition": explained,
        "work": cell_work() if work else None,
        "breakdown": breakdown() if parts else None,
    }
    cells = tuple(predicted_cell(c.cell_id, *gpus, **asked) for c in of.cells)
    return Predictions(**({"cells": cells, "versions": (("torch", "2.13.0"),)} | changes))
