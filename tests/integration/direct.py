"""Workers run through the engine, on prepared cells, without the command line between.

So a test can have something planted in a worker, and read all that it answers.
"""

import csv
import dataclasses
import json
import multiprocessing.forkserver
import os
from pathlib import Path

import pandas as pd

from ftbench.execute.cpu_tensors import TWO_STEP_PASS
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.prepare import PREPARE
from ftbench.execute.runner import CELL
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import build_profile
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.measurement import Measurement
from ftbench.records.messages import CellRequest, Preparation, PrepareRequest, TwoStepRequest
from tests.integration.conftest import SMALL

PLANTED = "tests.integration.planted_worker"
SHORT, LONG = 16, 64  # tokens of a document, [CLS] and [SEP] among them


def write_documents(file: Path, *, train: int, evaluation: int, long: int) -> None:
    """Write a CSV of documents of SHORT tokens, `long` of those for training of LONG tokens.

    A fifth of each class, its last, becomes the evaluation pool.
    """
    assert evaluation * 4 == train, "a fifth is held out"
    each = (train + evaluation) // 2
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for label in (0, 1):
            for row in range(each):
                tokens = LONG if label == 0 and row < long else SHORT
                writer.writerow([" ".join(["film"] * (tokens - 2)), label])


@dataclasses.dataclass
class Measured:
    """What a cell's worker left."""

    measurement: Measurement
    steps: pd.DataFrame
    resident: dict[str, int]  # before each plant of memory

    def phase(self, name):
        return self.measurement.phases[name]

    def rss(self, phase):
        return self.phase(phase).memory.peak_rss_bytes


class Bench:
    """Cells of one profile, prepared, and a way to run their workers with something planted."""

    def __init__(self, folder: Path, *, grid, dataset="offline:imdb", training=None, **workload):
        self.folder = folder
        names = {name.removeprefix("workload."): value for name, value in SMALL.items()}
        config = {k.removeprefix("config."): int(v) for k, v in names.items() if "config." in k}
        profile = build_profile(
            {
                "name": "direct",
                "workload": {
                    "model": "offline:minilm-l6",
                    "weights": "random",
                    "config": config | workload.pop("config", {}),
                    "dataset": str(dataset),
                    **workload,
                },
                "grid": [grid],
                "training": {"num_train_epochs": 1} | (training or {}),
                "padding": "longest",
            },
            where="direct",
        )
        self.cells = expand(
            profile, resolve_model(profile.workload), resolve_data(profile.workload)
        ).cells
        # A server that another test started may have neither torch in it nor this environment.
        multiprocessing.forkserver._forkserver._stop()
        self._engine = LocalEngine("forkserver", {})
        request = PrepareRequest(cells=self.cells, device="cpu", scratch=str(folder / "scratch"))
        answer = self.answer(PREPARE, request.model_dump(mode="json"))
        self.preparation = Preparation.model_validate(answer)

    def cell(self, **axes):
        (cell,) = (c for c in self.cells if all(c.value(k) == v for k, v in axes.items()))
        return cell

    def answer(self, module, body):
        """Return the answer of `module.main`; fails with the log where there is none."""
        before = os.environ.get("PYTHONPATH")
        # The server starts with it, at the first call.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path.cwd()), before)))
        try:
            outcome = self._engine.run(
                module,
                json.dumps(body),
                log_file=self.folder / "log",
                timeout_s=120.0,
                on_progress=lambda _: None,
            )
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
        assert outcome.answer is not None, outcome.log_tail
        return outcome.answer

    def two_step(self, cell, *, tensors=True, plants=None):
        """Return the answer of two steps of a cell."""
        request = TwoStepRequest(
            cell=cell,
            seed=cell.seed,
            device="cpu",
            preparation=self.preparation,
            output=str(self.folder / "two_step"),
            tensors=tensors,
        )
        return self._planted(TWO_STEP_PASS, request.model_dump(mode="json"), plants)

    def measure(self, cell, *, plants=None):
        """Return what was measured in a whole cell; steps as its Parquet has them."""
        steps = self.folder / "steps.parquet"
        request = CellRequest(
            cell=cell,
            replicate=0,
            seed=cell.seed,
            device="cpu",
            preparation=self.preparation,
            output=str(self.folder / "cell"),
            steps_file=str(steps),
            samples_file=str(self.folder / "samples.parquet"),
            reports=str(self.folder / "reports"),
        )
        answer = self._planted(CELL, request.model_dump(mode="json"), plants)
        assert answer["status"] == "ok", answer
        measurement = Measurement.model_validate(answer["measurement"])
        return Measured(measurement, pd.read_parquet(steps), answer.get("resident", {}))

    def _planted(self, module, body, plants):
        """Return the answer of the worker, or of the one that plants something in it first."""
        if not plants:
            return self.answer(module, body)
        return self.answer(PLANTED, body | {"module": module, "plants": plants})
