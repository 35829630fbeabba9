"""The base of every plain value here, and the scalar types that profiles are made of."""

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
    """Base of every plain value here: immutable, and nothing but the named fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values; what was worked out from the old ones is not copied with them.

        pydantic's own keeps the values of cached properties: a changed cell would have the old one's id. It
        also takes names that are no fields, which raise TypeError here.
        """
        unknown = set(update or ()) - type(self).model_fields.keys()
        if unknown and self.model_config.get("extra") != "allow":
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def flat(self) -> dict[str, Any]:
        """Return the values as JSON has them, by dotted name: `device.name`."""
        return dict(_flat(self.model_dump(mode="json")))


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
