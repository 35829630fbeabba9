"""First look: what `ftbench init` finds in a data set and a model before there is a profile. Plain data."""

from __future__ import annotations

from typing import Literal

from ftbench.base.frozen import FrozenModel
from ftbench.plan.sources import DataSource, ModelSource
from ftbench.records.messages import ClassCount
from ftbench.records.token_facts import TokenFacts

# text      texts
# whole     whole numbers, and true or false
# number    numbers with fractions
# words     a list of texts per row
# tags      a list of texts or whole numbers per row, as many as there are words
# messages  a conversation per row
# other     dates, objects, lists of something else, or nothing at all
Kind = Literal["text", "whole", "number", "words", "tags", "messages", "other"]


class ColumnFacts(FrozenModel):
    """A column of the training split: the kind of its values, and how often they occur.

    `missing` counts rows without a value, or with a text of spaces only. `distinct` and `rarest` (the rows of the
    rarest value) are those of values that are there; `letters` and `words` are means of texts. `refused` is the
    reason that the column cannot be read; then it has no other facts.
    """

    name: str
    kind: Kind
    rows: int
    missing: int = 0
    distinct: int = 0
    rarest: int = 0
    letters: float = 0.0
    words: float = 0.0
    examples: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def there(self) -> int:
        """Return the number of rows with a value."""
        return self.rows - self.missing


class ModelFacts(FrozenModel):
    """What a model's config says: whether it can be a causal language model, or is an encoder with a decoder."""

    model_type: str
    decoder: bool
    encoder_decoder: bool


class ColumnsRequest(FrozenModel):
    """Asks a worker for the columns of a data set."""

    data: DataSource
    model: ModelSource
    train_split: str | None


class DataColumns(FrozenModel):
    """The columns of the training split, the splits there are, and notes of how files were read.

    `no_header` is the reason for taking the first row for data instead of names, None if it has names.
    """

    columns: tuple[ColumnFacts, ...]
    splits: tuple[str, ...]
    train_split: str
    model: ModelFacts
    notes: tuple[str, ...] = ()
    no_header: str | None = None


class TextsRequest(FrozenModel):
    """Asks a worker for the texts of a data set as a run reads them, and for the time of a model's steps.

    `seconds` is how long timing may take, at most about.
    """

    data: DataSource
    model: ModelSource
    device: Literal["cpu", "cuda"]
    batch: int
    seconds: float


class StepTime(FrozenModel):
    """The seconds of an optimizer step and of a forward pass over one batch of texts of this length."""

    max_length: int
    step_s: float
    forward_s: float


class TextFacts(FrozenModel):
    """The pools that a run would have, and the time of steps on this device.

    `duplicates` counts texts that were seen before, over both pools, and `contradictions` those of them that have
    another label. `times` has the lengths that were timed, shortest first; none of a model that takes too long.
    """

    train_pool: int
    eval_pool: int
    eval_split: str
    classes: tuple[ClassCount, ...] = ()
    duplicates: int = 0
    contradictions: int = 0
    left_out: dict[str, int] = {}  # noqa: RUF012  (a default of a frozen model, copied for each)
    notes: tuple[str, ...] = ()
    tokens: TokenFacts
    limit: int | None = None
    parameters: int = 0
    device: str = ""
    batch: int = 1
    times: tuple[StepTime, ...] = ()
    load_s: float = 0.0
