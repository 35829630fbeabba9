"""The base of every plain value here, and the scalar types that profiles are made of."""

from __future__ import annotations

from typing import Annotated

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
