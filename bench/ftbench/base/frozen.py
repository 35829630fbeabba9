"""The base class of all plain values, and the scalar types that profiles consist of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
PositiveInt = Annotated[StrictInt, Field(gt=0)]
Name = Annotated[StrictStr, Field(min_length=1)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0)]


class FrozenModel(BaseModel):
    """Base class of all plain values: immutable, with no fields but the named ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, without the cached properties of the original.

        pydantic's own method copies cached properties: a changed cell would keep the old cell's id. It also
        accepts names that are not fields; here these raise TypeError.
        """
        unknown = set(update or ()) - type(self).model_fields.keys()
        if unknown and self.model_config.get("extra") != "allow":
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def flat(self) -> dict[str, Any]:
        """Return the values as JSON data, by dotted name: `device.name`."""
        return dict(_flat(self.model_dump(mode="json")))


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
