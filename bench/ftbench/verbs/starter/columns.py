"""Columns: which of them are the texts and the labels, guessed from their names and values; or why that is unclear.

The rules go from what a column holds (conversations, lists of words with tags) over pairs of names that data sets
have in common to single names, and to values at last. What two columns fit equally well is never guessed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.plan.profile import TaskName
from ftbench.records.first_look import ColumnFacts, DataColumns, ModelFacts

# Names of columns as data sets on the hub have them, in any case of letters; the likeliest first.
_TEXTS = (
    *("text", "sentence", "review", "content", "comment", "body", "tweet", "message"),
    *("utterance", "document", "description", "question", "query", "abstract", "title", "headline"),
)
_LABELS = (
    *("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "emotion"),
    *("rating", "stars", "polarity", "gold_label", "score", "grade", "y"),
)
# Names of labels and of nothing else. Beside a prompt and its answer, a topic or a score only describes them, but a
# label may be what is to be learned.
_SURE_LABELS = ("label", "labels", "gold_label", "class")
# Last words of the names of columns whose values repeat as those of classes do, but which are seldom what is to be
# learned.
_NO_LABELS = frozenset(
    (
        *("split", "subset", "fold", "partition", "source", "url", "link", "file", "path"),
        *("date", "datetime", "time", "timestamp", "at", "year", "month", "day", "hour"),
        *("lang", "language", "locale", "version", "author", "user", "username", "filename"),
        *("id", "ids", "uid", "userid"),
    )
)
_PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2")),
    *(("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair")),
    *(("query", "passage"), ("query", "document"), ("question", "sentence"), ("question", "passage")),
    ("question", "answer"),
)  # fmt: skip
_COMPLETIONS = (
    *(("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("prompt", "output")),
    *(("instruction", "output"), ("instruction", "response"), ("question", "answer")),
    *(("input", "output"), ("input", "target"), ("source", "target"), ("article", "highlights")),
    *(("document", "summary"), ("dialogue", "summary"), ("text", "summary")),
)  # fmt: skip
_TAGS = ("ner_tags", "tags", "labels")
_IDS = ("id", "idx", "index", "guid", "uid", "uuid", "key", "row", "unnamed: 0", "")
# Whole numbers of more different values than this are measured, not classes, unless their column is called a class.
_FEW_NUMBERS = 20
# A column holds classes if they are at most this share of its rows; as many as a run takes of a column so called.
_CLASS_SHARE, _MOST_CLASSES = 0.2, 10
_CLASS_WORDS = 5.0  # the words of a class's name, at most
# The texts of one column are so many times as long as those of another: it is the text.
_MUCH_LONGER = 3.0
_SHORT = 2.0  # words of what is no text, on average


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user says of the columns; None or nothing if it is to be guessed."""

    task: TaskName | None = None
    text: tuple[str, ...] = ()
    label: str | None = None
    completion: str | None = None
    messages: str | None = None

    def with_option(self, option: str, value: str) -> Given:
        """Return the same with a column, or a task, for one more option of the command line."""
        if option == "--task":
            return dataclasses.replace(self, task=cast("TaskName", value))
        if option == "--text":
            return dataclasses.replace(self, text=(value,))
        if option == "--label":
            return dataclasses.replace(self, label=value)
        if option == "--completion":
            return dataclasses.replace(self, completion=value)
        return dataclasses.replace(self, messages=value)


@dataclasses.dataclass(frozen=True)
class Roles:
    """The task and the columns that it reads, as the settings of a workload name them."""

    task: TaskName
    text: tuple[str, ...] = ()
    label: str | None = None
    completion: str | None = None
    messages: str | None = None

    def settings(self) -> dict[str, object]:
        """Return the settings of `[workload]` for these roles, without those that the task does not read."""
        found: dict[str, object] = {"task": self.task}
        if self.text:
            found["text_column"] = self.text[0] if len(self.text) == 1 else self.text
        for name in ("label", "completion", "messages"):
            if getattr(self, name) is not None:
                found[f"{name}_column"] = getattr(self, name)
        return found


@dataclasses.dataclass(frozen=True)
class Unclear:
    """A role that several columns fit, or none: the option that decides it, and the columns to choose from.

    `otherwise` are the roles of the columns if none of them has this one; None if one has to.
    """

    role: str
    option: str
    options: tuple[str, ...]
    otherwise: Roles | None = None


def guess(found: DataColumns, given: Given) -> Roles | Unclear:
    """Return the roles of a data set's columns, or the role that has to be decided by its user.

    Raises ProfileError for a column that is not there, or cannot have the role that it is given.
    """
    columns = {column.name: column for column in found.columns if column.refused is None}
    _require_known(found, given)
    if given.messages is not None or (given == Given() and _of_kind(columns, "messages")):
        return _conversations(columns, given)
    if given.completion is None and given.task in (None, "token-classification"):
        tagged = _tagged(columns, given)
        if tagged is not None:
            return tagged
    if given.completion is not None or (given.label is None and given.task not in _LABELLED):
        completed = _completed(columns, given, found.model)
        if completed is not None:
            return _beside_labels(columns, given, completed)
    if given.task in _UNLABELLED:
        return _plain(columns, given, found.model)
    label = _label(columns, given, found.model)
    if isinstance(label, Unclear):
        return label
    if label is None and given.task is None:
        return _plain(columns, given, found.model)
    if label is None:
        return Unclear("label", "--label", _possible_labels(columns))
    text = _text(columns, given, label.name)
    if isinstance(text, Unclear):
        return text
    return Roles(given.task or _task_of(label), text, label.name)


_LABELLED = ("text-classification", "text-regression", "token-classification")
_UNLABELLED = ("causal-lm", "masked-lm", "seq2seq-lm")


def _require_known(found: DataColumns, given: Given) -> None:
    """Raise ProfileError for a column that is named and is not there, or cannot be read."""
    columns = {column.name: column for column in found.columns}
    named = (
        *(("--text", name) for name in given.text),
        ("--label", given.label),
        ("--completion", given.completion),
        ("--messages", given.messages),
    )
    for option, name in named:
        if name is None:
            continue
        if name not in columns:
            raise ProfileError(
                "no such column",
                where=option,
                got=name,
                expected=f"one of {', '.join(columns)}",
                nearest=nearest_name(name, columns),
            )
        if columns[name].refused is not None:
            raise ProfileError(
                f"the column cannot be read: {columns[name].refused}", where=option, got=name
            )


def _of_kind(columns: Mapping[str, ColumnFacts], kind: str) -> tuple[str, ...]:
    return tuple(name for name, column in columns.items() if column.kind == kind)


def _conversations(columns: Mapping[str, ColumnFacts], given: Given) -> Roles | Unclear:
    named = (given.messages,) if given.messages else _of_kind(columns, "messages")
    if len(named) > 1:
        return Unclear("conversations", "--messages", tuple(filter(None, named)))
    return Roles("causal-lm", messages=named[0])


def _tagged(columns: Mapping[str, ColumnFacts], given: Given) -> Roles | Unclear | None:
    """Return the roles of lists of words and of their tags; None if there are none."""
    lists = [*_of_kind(columns, "words"), *_of_kind(columns, "tags")]
    called = {name.lower(): name for name in lists}
    words = given.text or tuple(called[n] for n in ("tokens", "words") if n in called)[:1]
    words = words or _of_kind(columns, "words")
    tags = [name for name in lists if name not in words]
    if given.label is not None:
        tags = [name for name in tags if name == given.label]
    if not words or not tags:
        return None
    if len(words) > 1:
        return Unclear("words", "--text", words)
    best = [name for name in _TAGS for tag in tags if tag.lower() == name] if len(tags) > 1 else []
    chosen = [tag for tag in tags if tag.lower() == best[0]] if best else tags
    if len(chosen) > 1:
        return Unclear("tags", "--label", tuple(chosen))
    return Roles("token-classification", words, chosen[0])


def _completed(
    columns: Mapping[str, ColumnFacts], given: Given, model: ModelFacts
) -> Roles | Unclear | None:
    """Return the roles of prompts and completions; None if no columns are called so, or they are classes."""
    task: TaskName = given.task or ("seq2seq-lm" if model.encoder_decoder else "causal-lm")
    if given.completion is not None:
        text = _text(columns, given, given.completion)
        return text if isinstance(text, Unclear) else Roles(task, text, None, given.completion)
    found = _named_pair(columns, _COMPLETIONS)
    if found is None or (given.text and given.text != found[:1]):
        return None
    prompt, completion = found
    if given.task is None and _holds_classes(columns[completion], called_so=False):
        return None
    return Roles(task, (prompt,), None, completion)


def _beside_labels(
    columns: Mapping[str, ColumnFacts], given: Given, completed: Roles | Unclear
) -> Roles | Unclear:
    """Return the roles of prompts and completions; unclear if labels beside them may be what is to be learned."""
    if given.task is not None or given.completion is not None or isinstance(completed, Unclear):
        return completed
    read = (*completed.text, completed.completion)
    labels = [
        one.name
        for one in _called(columns, _SURE_LABELS)
        if one.name not in read and _could_be_label(one)
    ]
    return Unclear("label", "--label", tuple(labels), completed) if labels else completed


def _named_pair(
    columns: Mapping[str, ColumnFacts], pairs: Iterable[tuple[str, str]]
) -> tuple[str, str] | None:
    """Return the first pair of text columns with these names, whatever the case of their letters."""
    called = {name.lower(): name for name, column in columns.items() if column.kind == "text"}
    return next(
        ((called[a], called[b]) for a, b in pairs if a in called and b in called),
        None,
    )


def _plain(columns: Mapping[str, ColumnFacts], given: Given, model: ModelFacts) -> Roles | Unclear:
    """Return the roles of texts without labels, from which a language model learns its own tokens."""
    text = _text(columns, given, None)
    if isinstance(text, Unclear):
        return text
    task: TaskName = given.task or ("causal-lm" if model.decoder else "masked-lm")
    if task == "seq2seq-lm":
        return Unclear("completions", "--completion", _others(columns, text))
    return Roles(task, text)


def _others(columns: Mapping[str, ColumnFacts], text: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in _of_kind(columns, "text") if name not in text)


def _label(
    columns: Mapping[str, ColumnFacts], given: Given, model: ModelFacts
) -> ColumnFacts | Unclear | None:
    """Return the column of the labels; None if no column looks like one."""
    if given.label is not None:
        return _checked(columns[given.label])
    usable = {name: one for name, one in columns.items() if name not in given.text}
    called = _called(usable, _LABELS)
    hinted = [one for one in called if _could_be_label(one)]
    if hinted and (len(hinted) == 1 or hinted[0].name.lower() == _LABELS[0]):
        return hinted[0]
    if hinted:
        return Unclear("label", "--label", _names(hinted))
    classes = [one for one in usable.values() if _holds_classes(one, called_so=False)]
    numbers = [one for one in usable.values() if one.kind == "number" and not _is_id(one)]
    likely = [one for one in classes if one.rarest > 1 and not _called_otherwise(one)]
    if not likely and given.task == "text-regression":
        likely = [one for one in numbers if not _called_otherwise(one)]
    if len(likely) > 1:
        return Unclear("label", "--label", _names(likely))
    likely = likely or [one for one in called if one.distinct == 1]
    if likely:
        return _checked(likely[0])
    doubtful = classes or numbers
    if not doubtful:
        return None
    return Unclear("label", "--label", _names(doubtful), _unlabelled(columns, given, model))


def _names(columns: Iterable[ColumnFacts]) -> tuple[str, ...]:
    return tuple(one.name for one in columns)


def _unlabelled(
    columns: Mapping[str, ColumnFacts], given: Given, model: ModelFacts
) -> Roles | None:
    """Return the roles of the columns without a label; None if the task needs one, or they are unclear."""
    found = _plain(columns, given, model) if given.task is None else None
    return found if isinstance(found, Roles) else None


def _checked(label: ColumnFacts) -> ColumnFacts:
    """Return the column; raises ProfileError if nothing can be learned from it."""
    if label.distinct == 1:
        raise ProfileError(
            "the column has only one value: there is nothing to learn",
            where=f"label column {label.name}",
            got=", ".join(label.examples),
            expected="two classes or more, or numbers",
            hint="--label names another column; --task causal-lm learns texts without labels",
        )
    return label


def _called(columns: Mapping[str, ColumnFacts], names: Sequence[str]) -> list[ColumnFacts]:
    """Return the columns with one of these names, in the order of the names."""
    by_name = {name.strip().lower(): column for name, column in columns.items()}
    return [by_name[name] for name in names if name in by_name]


def _could_be_label(column: ColumnFacts) -> bool:
    """Return whether a column that is called a label can be one: classes, or numbers."""
    if column.kind == "number":
        return True
    return _holds_classes(column, called_so=True) or (
        column.kind == "whole" and column.distinct > 1
    )


def _holds_classes(column: ColumnFacts, *, called_so: bool) -> bool:
    """Return whether the values of a column look like classes; stricter unless its name says so."""
    if column.kind not in ("text", "whole") or column.distinct < 2 or column.words > _CLASS_WORDS:
        return False
    if called_so:
        return column.distinct <= max(_MOST_CLASSES, column.there / 2)
    if _is_id(column) or column.distinct == column.there:
        return False
    few = max(2.0, _CLASS_SHARE * column.there)
    return column.distinct <= few and (column.kind == "text" or column.distinct <= _FEW_NUMBERS)


def _is_id(column: ColumnFacts) -> bool:
    name = column.name.strip().lower()
    return name in _IDS or name.endswith(("_id", " id", "-id"))


def _called_otherwise(column: ColumnFacts) -> bool:
    """Return whether the name of a column says that it is no label: `date`, `lang`, `user_name`, `userId`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", column.name) or [""]
    return words[-1].lower() in _NO_LABELS or "".join(words).lower() in _NO_LABELS


def _possible_labels(columns: Mapping[str, ColumnFacts]) -> tuple[str, ...]:
    return tuple(n for n, one in columns.items() if one.kind in ("text", "whole", "number"))


def _task_of(label: ColumnFacts) -> TaskName:
    """Return the task of a label: numbers are measured if they have fractions, or very many values."""
    if label.kind == "number":
        return "text-regression"
    many = label.kind == "whole" and label.distinct > max(_FEW_NUMBERS, label.there / 2)
    return "text-regression" if many else "text-classification"


def _text(
    columns: Mapping[str, ColumnFacts], given: Given, label: str | None
) -> tuple[str, ...] | Unclear:
    """Return the column of the texts, or the two of a pair."""
    if given.text:
        return given.text
    texts = {n: one for n, one in columns.items() if one.kind == "text" and n != label}
    pair = _named_pair(texts, _PAIRS) if label is not None and given.completion is None else None
    if pair is not None:
        return pair
    long = {n: one for n, one in texts.items() if one.words >= _SHORT and not _is_id(one)} or texts
    if len(long) == 1:
        return tuple(long)
    called = _called(long, _TEXTS)
    if called and (len(called) == 1 or called[0].name.lower() == _TEXTS[0]):
        return (called[0].name,)
    longest = sorted((one for one in called or long.values()), key=lambda one: -one.words)
    if longest and longest[0].words >= _MUCH_LONGER * longest[1].words:
        return (longest[0].name,)
    return Unclear("text", "--text", tuple(long))
