"""The text of a first profile: TOML with a comment beside what was found in the data.

Every text that comes from a file or its name is written as a TOML value, also in a comment, so that none
ends its line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ftbench.base.units import counted, format_seconds
from ftbench.plan.one_cell import toml_value
from ftbench.plan.profile import TaskName
from ftbench.records.first_look import TextFacts
from ftbench.verbs.starter.first_grid import SLOWEST, FirstGrid

_SHOWN_CLASSES = 10
# In as few steps as a first grid has, the recipe's 2e-5 learns nothing.
_LEARNING_RATE: Mapping[bool, float] = {True: 5e-5, False: 1e-4}
_OF_TOKENS: frozenset[TaskName] = frozenset({"causal-lm", "masked-lm", "seq2seq-lm"})


@dataclasses.dataclass(frozen=True)
class Starter:
    """All that a first profile says: the settings of its workload, the facts behind them, and its grid."""

    workload: Mapping[str, Any]
    facts: TextFacts
    grid: FirstGrid
    cells: int = 0
    seconds: float | None = None


def training_of(task: TaskName) -> dict[str, Any]:
    """Return the training settings of a first profile."""
    return {"learning_rate": _LEARNING_RATE[task in _OF_TOKENS]}


def run_of() -> dict[str, Any]:
    """Return how the cells of a first profile are run."""
    return {"cpu_tensors": False}


def profile_data(workload: Mapping[str, Any], grid: FirstGrid) -> dict[str, Any]:
    """Return the data of the profile, as a TOML reader gives it."""
    return {
        "description": _description(workload),
        "workload": {**workload, "eval_size": grid.eval_size},
        "grid": grid.blocks(),
        "training": training_of(workload["task"]),
        "run": run_of(),
    }


def _description(workload: Mapping[str, Any]) -> str:
    return f"First look at {workload['dataset']}: cost by length and batch, scores by training examples."


def profile_text(starter: Starter, *, command: str) -> str:
    """Return the TOML of a profile that `command` wrote, with its comments."""
    data = profile_data(starter.workload, starter.grid)
    lines = [
        f"# Written by {toml_value(command)}. Every line may be changed; all keys: ftbench schema.",
        f"description = {toml_value(data['description'])}",
        "",
        "[workload]",
        *_workload_lines(data["workload"], starter),
        "",
        *_token_lines(starter.facts),
        *_time_lines(starter),
        *_grid_lines(data["grid"]),
        "[training]                          # fields of transformers.TrainingArguments",
        *(f"{key} = {toml_value(value)}" for key, value in data["training"].items()),
        "",
        "[run]",
        "# Two more steps in a process of their own would measure the peak of the CPU tensors.",
        *(f"{key} = {toml_value(value)}" for key, value in data["run"].items()),
    ]
    return "\n".join(lines) + "\n"


def _workload_lines(workload: Mapping[str, Any], starter: Starter) -> Iterator[str]:
    comments = _comments(starter.facts)
    for key, value in workload.items():
        comment = comments.get(key)
        line = f"{key} = {toml_value(value)}"
        yield f"{line:35} # {comment}" if comment else line


def _comments(facts: TextFacts) -> dict[str, str]:
    """Return what was found in the data, by the key that it stands beside."""
    left_out = facts.left_out
    split = toml_value(facts.eval_split)
    pools = f"{counted(facts.eval_pool, 'example')} ({split}); {facts.train_pool:,} to train on"
    seen = f"{counted(facts.duplicates, 'text')} of all rows seen before"
    if facts.contradictions:
        seen += f", {facts.contradictions:,} with another label"
    return {
        "dataset": "a path is relative to the folder that ftbench runs in",
        "label_column": _class_shares(facts),
        "drop_duplicates": seen,
        "drop_rows_without_text": f"{counted(left_out.get('without a text', 0), 'row')} without a text",
        "drop_rows_without_label": f"{counted(left_out.get('without a label', 0), 'row')} without a label",
        "eval_size": f"of {pools}",
    }


def _class_shares(facts: TextFacts) -> str:
    """Return the classes and their shares of all examples, the most frequent first; nothing if there are none."""
    counts = {one.name: one.train_pool + one.eval_pool for one in facts.classes}
    total = sum(counts.values())
    if not total:
        return ""
    ordered = sorted(counts, key=lambda name: -counts[name])
    shown = [f"{toml_value(n)} {counts[n] / total:.0%}" for n in ordered[:_SHOWN_CLASSES]]
    more = [f"and {len(ordered) - _SHOWN_CLASSES} more"] if len(ordered) > _SHOWN_CLASSES else []
    return f"{len(ordered)} classes: {', '.join([*shown, *more])}"


def _token_lines(facts: TextFacts) -> Iterator[str]:
    tokens = facts.tokens
    sample = f", in {tokens.texts:,} texts drawn at random" if tokens.texts < tokens.of else ""
    yield (
        f"# Tokens per text: median {tokens.median:,}, 95 % have at most {tokens.p95:,}, the longest has"
        f" {tokens.longest:,}{sample}."
    )
    yield "#   max_length   texts cut   padding, of all tokens"
    for one in tokens.by_length:
        yield f"#   {one.max_length:10}   {one.cut:9.0%}   {one.padding:7.0%}"


def _time_lines(starter: Starter) -> Iterator[str]:
    """Yield how long the cells take, and how that was found."""
    facts = starter.facts
    if starter.seconds is None:
        yield "# Its time is not known: the steps of this model take too long here to be timed first."
        yield ""
        return
    timed = ", ".join(f"{format_seconds(one.step_s)} at {one.max_length}" for one in facts.times)
    yield (
        f"# {counted(starter.cells, 'cell')}: about {format_seconds(starter.seconds)}, at most"
        f" {format_seconds(SLOWEST * starter.seconds)}, on {toml_value(facts.device)}."
    )
    yield f"# Timed: optimizer steps of {facts.batch} texts, {timed}; then counted by the schedule of each cell."
    yield ""


def _grid_lines(blocks: list[dict[str, list[int]]]) -> Iterator[str]:
    about = ("cost, by length and batch", "scores, by the number of training examples")
    for block, words in zip(blocks, about, strict=False):
        yield f"[[grid]]                            # {words}"
        yield from (f"{key} = {toml_value(value)}" for key, value in block.items())
        yield ""
