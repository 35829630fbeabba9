"""One table of the measured figures of a cell: for each, its unit and its path in a record.

Columns of tables and exports, the memory table, invariants and comparisons are derived from it. A new meter of
memory needs a file in `worker/measure/meters/`, an entry in the list of `memory_meters.py`, and one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.plan.scores import HEADLINES, SCORES, ScoreKind

if TYPE_CHECKING:
    from ftbench.records.measurement import Measurement
    from ftbench.records.readings import Phase

Unit = Literal[
    "byte", "s", "J", "share", "step", "fault", "example/s", "token/s", "FLOP/s", "count", ""
]
# The origin of a memory figure: torch's allocator (exact to the byte), the card, or the host.
Place = Literal["torch", "card", "host"]


class Figure(NamedTuple):
    """One figure of a measurement.

    `name` is its column in files. `word` heads that column in a table that people read; a figure without a word
    is in files only. `path` is its place in a measurement, by which a record also names a figure that is absent
    or untrusted; `read` computes a figure that has no place of its own. `nested_in` is the figure that contains
    this one and so cannot be smaller; `follows` is the path of a figure: if that is untrusted, so is this one.
    `depth` orders the readings of memory, from the innermost out. `narrow` is the order in which a narrow table
    leaves figures out, 0 for never. `meaning` says what the figure is, if a record has no field that says so.
    """

    name: str
    unit: Unit = ""
    word: str = ""
    path: str = ""
    nested_in: str = ""
    follows: str = ""
    place: Place | None = None
    depth: int = 0
    narrow: int = 0
    read: Callable[[Measurement], Any] | None = None
    meaning: str = ""

    @property
    def reading(self) -> str:
        """Return the name of a memory figure within `Memory`; empty for any other figure."""
        folder, _, field = self.path.rpartition(".")
        return field if folder == "memory" else ""


def energy_j(measured: Measurement) -> float | None:
    """Return the joules that the card used over all phases; None if a phase has no count."""
    joules = [phase.energy_j for phase in measured.phases.values()]
    known = [value for value in joules if value is not None]
    return sum(known) if known and len(known) == len(joules) else None


def _train(measured: Measurement) -> Phase | None:
    return measured.phases.get("train")


def _kernel_share(measured: Measurement) -> float | None:
    train = _train(measured)
    if train is None or train.kernel_s is None or train.cpu_s <= 0:
        return None
    return train.kernel_s / train.cpu_s


def _page_faults_per_step(measured: Measurement) -> float | None:
    train = _train(measured)
    if train is None or train.page_faults is None or not train.steps:
        return None
    return train.page_faults / train.steps


def _score(name: str) -> Callable[[Measurement], float | None]:
    def read(measured: Measurement) -> float | None:
        score = measured.score(name)
        return score.value if score else None

    return read


def _score_figure(kind: ScoreKind) -> Figure:
    """Return the figure of a score; a narrow table never leaves out a headline score."""
    unit: Unit = "share" if kind.scale == "share" else ""
    narrow = 0 if kind in HEADLINES else 2
    path = f"scores.{kind.name}"
    return Figure(
        kind.column,
        unit,
        kind.word,
        path,
        narrow=narrow,
        read=_score(kind.name),
        meaning=f"The score {kind.name} of the model that was kept, on the evaluation examples.",
    )


def _headline(part: Literal["standard_error", "guess"]) -> Callable[[Measurement], float | None]:
    def read(measured: Measurement) -> float | None:
        return getattr(measured.scores[0], part) if measured.scores else None

    return read


_MEDIAN, _RATE = "steps.median_s", "steps.samples_per_s"

# The scores among the columns that cells.csv begins with: those of the first two tasks.
_FIRST_SCORES = (SCORE_KINDS["accuracy"], SCORE_KINDS["pearson"])
# The columns that cells.csv begins with, in this order.
FIRST = (
    *map(_score_figure, _FIRST_SCORES),
    Figure("eval_loss", "", "eval loss", "eval_loss", narrow=2),
    Figure("total_s", "s", "total", "total_s"),
    Figure("train_s", "s", "train", "train_s", narrow=3),
    Figure("step_median_s", "s", "step (median)", _MEDIAN),
    Figure("samples_per_s", "example/s", "samples/s", _RATE, narrow=4),
    Figure("tokens_per_s", "token/s", "tokens/s", "steps.real_tokens_per_s", follows=_RATE),
    Figure("mfu", "share", "MFU", "steps.mfu", follows=_RATE),
    Figure("peak_rss_bytes", "byte", "peak RSS", "memory.peak_rss_bytes", place="host", depth=7),
    Figure(
        "peak_allocated_bytes",
        "byte",
        "peak allocated",
        "memory.peak_allocated_bytes",
        nested_in="peak_reserved_bytes",
        place="torch",
        depth=1,
    ),
    Figure(
        "peak_reserved_bytes",
        "byte",
        "peak reserved",
        "memory.peak_reserved_bytes",
        nested_in="peak_process_bytes",
        place="torch",
        depth=2,
    ),
    Figure(
        "peak_process_bytes",
        "byte",
        "process",
        "memory.peak_process_bytes",
        nested_in="peak_device_bytes",
        place="card",
        depth=4,
        narrow=9,
    ),
)
FIGURES = (
    *FIRST,
    *(_score_figure(kind) for kind in SCORES if kind not in _FIRST_SCORES),
    # Both belong to the run's headline score.
    Figure(
        "score_se",
        read=_headline("standard_error"),
        meaning="The headline score's spread over other draws of as many evaluation examples.",
    ),
    Figure(
        "score_guess",
        read=_headline("guess"),
        meaning="The headline score of a model that ignores the text.",
    ),
    Figure("train_loss", "", "", "train_loss"),
    Figure("step_min_s", "s", "", "steps.min_s"),
    Figure("step_q1_s", "s", "", "steps.q1_s", follows=_MEDIAN),
    Figure("step_q3_s", "s", "", "steps.q3_s", follows=_MEDIAN),
    Figure("step_low_s", "s", "", "steps.median_low_s", follows=_MEDIAN),
    Figure("step_high_s", "s", "", "steps.median_high_s", follows=_MEDIAN),
    Figure("step_warmup_steps", "step", "", "steps.warmup_steps"),
    Figure("data_wait_median_s", "s", "", "steps.data_wait_median_s"),
    Figure(
        "padded_tokens_per_s",
        "token/s",
        "padded tokens/s",
        "steps.padded_tokens_per_s",
        follows=_RATE,
        narrow=1,
    ),
    Figure("flops_per_s", "FLOP/s", "", "steps.flops_per_s", follows=_RATE),
    Figure(
        "peak_device_bytes",
        "byte",
        "device",
        "memory.peak_device_bytes",
        place="card",
        depth=5,
        narrow=8,
    ),
    Figure(
        "context_bytes", "byte", "context", "memory.context_bytes", place="card", depth=3, narrow=5
    ),
    Figure(
        "peak_pss_bytes", "byte", "PSS", "memory.peak_pss_bytes", place="host", depth=8, narrow=6
    ),
    Figure(
        "peak_cpu_tensors_bytes",
        "byte",
        "CPU tensors",
        "memory.peak_cpu_tensors_bytes",
        place="host",
        depth=6,
        narrow=7,
    ),
    Figure("energy_j", "J", read=energy_j, meaning="The energy of the whole card in all phases."),
    Figure("load_s", "s", "", "phases.load.wall_s"),
    Figure("evaluation_s", "s", "", "phases.evaluation.wall_s"),
    Figure("save_s", "s", "", "phases.save.wall_s"),
    Figure("others_cpu_share", "share", "", "load.others_cpu_share"),
    Figure(
        "kernel_share",
        "share",
        read=_kernel_share,
        meaning="The kernel's part of the processor time of training.",
    ),
    Figure(
        "page_faults_per_step",
        "fault",
        read=_page_faults_per_step,
        meaning="Minor page faults of training, per step.",
    ),
)
BY_NAME: Mapping[str, Figure] = MappingProxyType({figure.name: figure for figure in FIGURES})
# The readings of memory (fields of `Memory`): the card's, then the host's, each from the innermost out.
READINGS = tuple(
    sorted((figure for figure in FIGURES if figure.reading), key=lambda figure: figure.depth)
)


def value_of(figure: Figure, measured: Measurement) -> Any:
    """Return a figure's value in a measurement; None if it is absent."""
    if figure.read is not None:
        return figure.read(measured)
    value: Any = measured
    for part in figure.path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        if value is None:
            return None
    return value


def withheld_with(path: str) -> tuple[str, ...]:
    """Return the columns that are untrusted if the figure at `path` is."""
    columns = tuple(figure.name for figure in FIGURES if path in (figure.path, figure.follows))
    return columns or (path.rpartition(".")[2],)
