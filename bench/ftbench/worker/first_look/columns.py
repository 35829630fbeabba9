"""The worker that describes the columns of a data set, read as a run reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    PreTrainedConfig,
)

from ftbench.base.errors import WorkloadError, nearest_name
from ftbench.base.text import joined
from ftbench.plan.sources import ModelSource
from ftbench.records.first_look import ColumnFacts, ColumnsRequest, DataColumns, Kind, ModelFacts
from ftbench.records.messages import Progress
from ftbench.worker.data.columns import is_text, missing
from ftbench.worker.data.content import WHERE, Reading
from ftbench.worker.data.find_splits import find_splits
from ftbench.worker.data.headers import column_names
from ftbench.worker.data.splits import UNTYPED, Split, kind_of
from ftbench.worker.recipe.sources import location_of, revision_of

# CSV columns read under this setting become numbers if all of their values are.
_SETTING = "workload.label_column"
_TRAIN = "train"
# Rows that means and kinds of lists are taken of.
_LOOKED_AT = 10_000
_EXAMPLES, _SHOWN = 3, 40
# A list's texts are tags if there are few different ones: at most so many, and so small a share of all.
_MOST_TAGS, _TAGS_SHARE = 100, 0.2
# A name of a column with more words than this is a text.
_LONGEST_NAME = 6


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `DataColumns` of a `ColumnsRequest`, both as JSON data; raises WorkloadError."""
    datasets.disable_progress_bars()
    request = ColumnsRequest.model_validate(body)
    emit(Progress(phase="reading the columns"))
    reading = Reading(request.data.separator, request.data.encoding)
    splits = find_splits(request.data, reading)
    name = _train_split(list(splits), request.train_split)
    columns = _columns(splits[name], reading)
    return DataColumns(
        columns=tuple(columns),
        splits=tuple(splits),
        train_split=name,
        model=_model_facts(request.model),
        notes=tuple(reading.notes),
        no_header=_no_header(splits[name], columns),
    ).model_dump(mode="json")


def _train_split(names: Sequence[str], asked: str | None) -> str:
    """Return the split to train on: the one asked for, `train`, or the only one. Raises WorkloadError."""
    if asked is None and (_TRAIN in names or len(names) == 1):
        return _TRAIN if _TRAIN in names else names[0]
    if asked in names:
        return str(asked)
    raise WorkloadError(
        "no such split" if asked else "the data set has several splits, and none is called train",
        where="--train-split",
        got=asked,
        expected=f"one of {', '.join(names)}",
        nearest=nearest_name(asked, names) if asked else None,
    )


def _columns(split: Split, reading: Reading) -> list[ColumnFacts]:
    """Return the facts of every column; one that cannot be read has the reason. Raises WorkloadError for a file."""
    names = column_names(split, reading)
    found = [_column(split, name, reading) for name in dict.fromkeys(names)]
    if not found:
        raise WorkloadError(
            "no column that all files of the split have",
            where=WHERE,
            got=joined(sorted({file.name for file in split.files})[:5]),
        )
    if all(column.refused for column in found):
        _read(split, names[0], reading)  # raises what is wrong with the file
    return found


def _read(split: Split, name: str, reading: Reading) -> pa.ChunkedArray:
    values = split.read({name: _SETTING}, reading)[name]
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _column(split: Split, name: str, reading: Reading) -> ColumnFacts:
    try:
        values = _read(split, name, reading)
    except WorkloadError as error:
        return ColumnFacts(name=name, kind="other", rows=0, refused=str(error).splitlines()[0])
    return column_facts(name, values, classes=split.names(name) is not None)


def column_facts(name: str, values: pa.ChunkedArray, *, classes: bool = False) -> ColumnFacts:
    """Return the facts of a column's values; whole numbers with names of `classes` are those names' places."""
    absent = missing(values)
    there = values.filter(pc.invert(absent))
    kind = _kind(there)
    counts = [] if pa.types.is_nested(values.type) else there.value_counts().field("counts")
    texts = there.slice(0, _LOOKED_AT) if kind == "text" else None
    return ColumnFacts(
        name=name,
        kind=kind,
        rows=len(values),
        missing=len(values) - len(there),
        distinct=len(counts),
        rarest=min(pc.min(counts).as_py() or 0, len(values)) if len(counts) else 0,
        letters=_mean(pc.utf8_length(texts)) if texts is not None else 0.0,
        words=_mean(pc.list_value_length(pc.utf8_split_whitespace(texts))) if texts else 0.0,
        examples=tuple(_short(value) for value in there.slice(0, 50).unique().to_pylist())[
            :_EXAMPLES
        ]
        if not pa.types.is_nested(values.type)
        else tuple(_short(value) for value in there.slice(0, 1).to_pylist()),
    )


def _mean(numbers: pa.ChunkedArray) -> float:
    return float(pc.mean(numbers).as_py() or 0.0)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _kind(values: pa.ChunkedArray) -> Kind:
    """Return the kind of the values that are there."""
    of = values.type
    if not len(values):
        return "other"
    if is_text(values):
        return "text"
    if pa.types.is_integer(of) or pa.types.is_boolean(of):
        return "whole"
    if pa.types.is_floating(of):
        return "whole" if _all_whole(values) else "number"
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return _kind_of_lists(values.slice(0, _LOOKED_AT), of.value_type)
    return "other"


def _all_whole(values: pa.ChunkedArray) -> bool:
    """Return whether numbers are whole, as those that a table wrote with missing values beside them."""
    return bool(pc.all(pc.equal(values, pc.floor(values))).as_py()) and len(values.unique()) <= 20


def _kind_of_lists(values: pa.ChunkedArray, of: pa.DataType) -> Kind:
    if pa.types.is_integer(of):
        return "tags"
    if pa.types.is_struct(of):
        names = {of.field(place).name for place in range(of.num_fields)}
        return "messages" if {"role", "content"} <= names else "other"
    if not (pa.types.is_string(of) or pa.types.is_large_string(of)):
        return "other"
    texts = pc.list_flatten(values)
    few = len(texts.unique()) <= min(_MOST_TAGS, _TAGS_SHARE * len(texts))
    return "tags" if few else "words"


def _no_header(split: Split, columns: Sequence[ColumnFacts]) -> str | None:
    """Return why the first row of CSV files seems to be data; None if its fields are names."""
    if not all(kind_of(file) in UNTYPED for file in split.files) or not split.files:
        return None
    names = [column.name for column in columns]
    if names == list(map(str, range(len(names)))):
        return None  # as pandas writes a table without names
    for column in columns:
        name = column.name
        if name.strip().lstrip("+-").replace(".", "", 1).isdecimal():
            return f"the number {name}"
        if len(name.split()) > _LONGEST_NAME:
            return f"a text of {len(name.split())} words"
        if column.kind == "whole" and name.strip().lower() in ("true", "false"):
            return f"the value {name}"
        if column.kind == "text" and column.distinct <= 20 and name in column.examples:
            return f"{name}, which is also a value of this column"
    return None


def _model_facts(model: ModelSource) -> ModelFacts:
    """Return what the config says of a model; raises WorkloadError if there is none."""
    source = model.source
    try:
        config: PreTrainedConfig = (
            AutoConfig.for_model(source.location)
            if source.kind == "architecture"
            else AutoConfig.from_pretrained(
                location_of(source), trust_remote_code=False, **revision_of(source)
            )
        )
    except WorkloadError:
        raise
    except Exception as error:  # OSError, ValueError or KeyError, depending on what is missing
        raise WorkloadError(
            f"no model config: {error}", where="workload.model", got=source.reference
        ) from error
    of = type(config)
    encoder_decoder = bool(config.is_encoder_decoder) or (
        of in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and of not in MODEL_FOR_CAUSAL_LM_MAPPING
    )
    named = " ".join(config.architectures or ())
    encoder = any(word in named for word in ("Masked", "Classification", "QuestionAnswering"))
    return ModelFacts(
        model_type=config.model_type,
        decoder=of in MODEL_FOR_CAUSAL_LM_MAPPING and not _is_encoder(config, encoder=encoder),
        encoder_decoder=encoder_decoder,
    )


def _is_encoder(config: PreTrainedConfig, *, encoder: bool) -> bool:
    """Return whether a model that could be a causal language model is an encoder: BERT is among those of both."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    return (type(config) in MODEL_FOR_MASKED_LM_MAPPING or encoder) and not config.is_decoder
