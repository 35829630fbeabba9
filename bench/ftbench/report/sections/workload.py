"""The workload: models and their checkpoints, data and their classes, the attention that ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ftbench.base.units import counted
from ftbench.records.checkpoint import Checkpoint
from ftbench.records.messages import ClassCount, DataFacts, Preparation
from ftbench.records.record import Record
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table

HEADING = "The workload"
_FOLD_FROM = 12
_MOST_NAMES = 4


def workload_section(records: Sequence[Record], preparation: Preparation) -> Section:
    """Return the models and the data of records; facts about the data are those of the run directory's own."""
    several = len(dict.fromkeys(record.cell.data.source for record in records)) > 1
    facts = DataFacts() if several else preparation.data
    paragraphs = (
        *_models(records, preparation),
        *_checkpoints(records),
        *_attention(records),
        *_data(records, preparation),
        *_facts(facts),
    )
    return Section(HEADING, paragraphs, _class_tables(facts.classes))


def _models(records: Sequence[Record], preparation: Preparation) -> Iterator[str]:
    models = dict.fromkeys((r.cell.model.source, r.cell.model.weights) for r in records)
    for source, weights in models:
        size = f"{preparation.parameters / 1e6:.2f} M parameters, " if len(models) == 1 else ""
        yield f"Model: {source.reference} ({size}{weights} weights), revision `{source.revision}`."


def _checkpoints(records: Sequence[Record]) -> Iterator[str]:
    """Yield what each checkpoint gave its model, once."""
    found = dict.fromkeys(
        (record.cell.model.source.reference, record.measurement.checkpoint)
        for record in records
        if record.measurement is not None and record.measurement.checkpoint is not None
    )
    for name, checkpoint in found:
        if checkpoint is not None:
            yield f"Checkpoint of {name}: {'; '.join(_checkpoint(checkpoint))}."


def _checkpoint(one: Checkpoint) -> Iterator[str]:
    yield f"{counted(one.loaded_parameters, 'parameter')} read from it"
    if one.new_parameters:
        yield f"{counted(one.new_parameters, 'parameter')} new, with random values{_names(one.new)}"
    if one.new_in_body:
        outside = counted(one.new_in_body, "new tensor")
        yield f"{outside} outside the head, which this workload accepts"
    if one.reshaped:
        yield f"of another shape in the checkpoint, so not read: {', '.join(one.reshaped)}"
    if one.unused:
        yield f"{counted(one.unused, 'tensor')} of the checkpoint not used"


def _names(names: Sequence[str]) -> str:
    """Return the first names in brackets; empty if there are none."""
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f" ({', '.join(names[:_MOST_NAMES])}{more})"


def _attention(records: Sequence[Record]) -> Iterator[str]:
    """Yield the attention that ran if it is not the one that the cell has."""
    ran = Counter(
        (record.cell.attn_implementation, record.measurement.attn_implementation)
        for record in records
        if record.measurement is not None
        and record.measurement.attn_implementation not in (None, record.cell.attn_implementation)
    )
    for (asked, found), count in ran.items():
        yield (
            f"Attention: {counted(count, 'run')} with {found}, since the model has no {asked} attention."
        )


def _data(records: Sequence[Record], preparation: Preparation) -> Iterator[str]:
    sources = dict.fromkeys(record.cell.data.source for record in records)
    pools = (
        f" (pools of {counted(preparation.train_pool, 'training example')} and"
        f" {counted(preparation.eval_pool, 'evaluation example')})"
    )
    for data in sources:
        of = pools if len(sources) == 1 else ""
        yield f"Data: {data.reference}{of}, revision `{data.revision}`."


def _facts(facts: DataFacts) -> Iterator[str]:
    """Yield the share of the most frequent class, rows left out, examples on both sides, notes on files."""
    if facts.majority_share is not None:
        most = max(facts.classes, key=lambda one: one.evaluated)
        evaluated = sum(one.evaluated for one in facts.classes)
        yield (
            f"The most frequent class among the evaluated examples is {most.name}: {most.evaluated:,} of"
            f" {evaluated:,} ({facts.majority_share:.1%}). Always answering it has this accuracy."
        )
    for size, count in facts.evaluated_in_training.items():
        if count:
            are = "is a training example, too" if count == 1 else "are training examples, too"
            yield (
                f"{counted(count, 'evaluation example')} {are}, with {counted(size, 'training example')}:"
                " the score is too high there."
            )
    for reason, count in facts.left_out.items():
        yield f"Rows left out, {reason}: {count:,}."
    yield from (f"{note}." for note in facts.notes)


def _class_tables(classes: Sequence[ClassCount]) -> tuple[Table, ...]:
    """Return the number of examples of each class; no table if there are no classes."""
    if not classes:
        return ()
    totals = [sum(getattr(one, pool) for one in classes) for pool in _POOLS]
    rows = tuple((one.name, *_counts(one, totals)) for one in classes)
    heads = ("class", "in the training pool", "in the evaluation pool", "evaluated")
    return (
        Table("Classes", heads, rows, (False, True, True, True), folded=len(rows) > _FOLD_FROM),
    )


_POOLS = ("train_pool", "eval_pool", "evaluated")


def _counts(one: ClassCount, totals: Sequence[int]) -> Iterator[str]:
    """Yield the number of a class's examples in each pool, and their share of it."""
    for pool, total in zip(_POOLS, totals, strict=True):
        count = getattr(one, pool)
        yield f"{count:,} ({count / total:.1%})" if total else f"{count:,}"
