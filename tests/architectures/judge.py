"""One architecture, judged: its trace beside the peak of the real Trainer."""

import dataclasses
import tempfile
import traceback
from pathlib import Path

from transformers import AutoConfig

from ftbench.base.errors import FtbenchError
from ftbench.base.units import KIB
from ftbench.plan.grid import expand
from ftbench.plan.profile import TaskName
from ftbench.plan.sources import resolve_model
from ftbench.prediction.trace.trace_trainer import trace_trainer
from ftbench.prediction.trace.tracer import Target
from tests.architectures.configs import small_config
from tests.cpu_peak import peak_of_training
from tests.factories import data_source, profile

AGREES, TRACES, REFUSED, ERROR = OUTCOMES = ("agrees", "traces", "refused", "error")
LIMIT = 8 * KIB
STEPS, BATCH, LENGTH, EVALUATED = 2, 4, 64, 8
_TARGETS = {"completion_column": "target", "max_target_length": 24}


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What became of an architecture: an outcome, and the difference in bytes or the reason."""

    task: TaskName
    model_type: str
    outcome: str
    detail: str

    def line(self):
        """Return the judgement as one line."""
        return f"{self.task:<19} {self.model_type:<26} {self.outcome:<8} {self.detail}".rstrip()


def judge(model_type, task="text-classification"):
    """Return the judgement of one model type in a task."""
    outcome, detail = _judged(model_type, task)
    return Judgement(task, model_type, outcome, detail)


def _judged(model_type, task):
    """Return an outcome, and its detail."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = small_config(model_type, task)
        except Exception as error:  # a default config of transformers that does not hold together
            return REFUSED, f"no small config of it: {_shown(error)}"
        try:
            config.save_pretrained(folder)
            cell = cell_of(Path(folder), task)
            traced = trace_trainer(cell, Target(device="cpu", padding=False), steps=STEPS)
        except FtbenchError as error:
            reason = " ".join(str(error).replace(folder, model_type).split())
            return REFUSED, f"{type(error).__name__}: {reason}"
        except Exception as error:
            traceback.print_exc()
            return ERROR, _shown(error)
        try:
            measured = peak_of_training(cell, padded=False, steps=STEPS)
        except Exception as error:
            traceback.print_exc()
            return ERROR, f"the real run: {_shown(error)}"
    difference = traced.peak_bytes - measured
    outcome = AGREES if abs(difference) <= LIMIT else TRACES
    return outcome, f"{difference:+,} bytes of {measured:,}"


def cell_of(folder, task="text-classification"):
    """Return the cell that trains the architecture whose config is in a folder.

    A decoder among the sequence-to-sequence models reads prompt and target as one sequence.
    """
    if task == "seq2seq-lm" and not AutoConfig.from_pretrained(folder).is_encoder_decoder:
        task = "causal-lm"
    columns = _TARGETS if task == "seq2seq-lm" else {}
    model = {"model": str(folder), "tokenizer": "offline:minilm-l6", "weights": "random"}
    of = profile(
        workload={**model, "task": task, **columns},
        grid=[
            {
                "max_length": [LENGTH],
                "per_device_train_batch_size": [BATCH],
                "train_size": [16 * BATCH],
            }
        ],
        attn_implementation="sdpa",
    )
    data = data_source(eval_size=EVALUATED, task=task, **columns)
    return expand(of, resolve_model(of.workload), data).cells[0]


def _shown(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
