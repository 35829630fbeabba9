"""The worker of a cell as ftbench runs it, with a baton as the Trainer's last callback."""

import os
from pathlib import Path

from ftbench.worker import cell
from ftbench.worker.recipe import finetune
from tests.benchmarks.baton import Baton


def main(body, emit):
    folder = Path(os.environ["FTBENCH_BATON"])
    first = os.environ["FTBENCH_BATON_FIRST"] == "harness"
    baton = Baton(folder / "harness", folder / "bare", first=first)
    build = finetune.build_trainer

    def build_with_baton(*args, **kwargs):
        trainer = build(*args, **kwargs)
        trainer.add_callback(baton)
        return trainer

    finetune.build_trainer = build_with_baton
    answer = cell.main(body, emit)
    baton.write(folder / "harness.json")
    return answer
