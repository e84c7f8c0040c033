"""What every section of params.yaml has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: the setting, its value and what was expected."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name}: no such setting"
    if first["type"] == "missing":
        return f"{name} is missing"
    value = "" if isinstance(first["input"], dict | list) else f"={first['input']!r}"
    return f"{name}{value}: {message}" if name else message
