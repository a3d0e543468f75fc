"""What the configuration of every stage has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from artifacts import paths


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"a number is needed here, not {str(value).lower()}")
    return value


NUMBER = BeforeValidator(_no_truth_value)
"""Last in an annotation: bounds that come after it are kept, but not described."""
Whole = Annotated[int, NUMBER]
Real = Annotated[float, NUMBER]
Seed = Annotated[int, Field(ge=0, lt=2**32), NUMBER]
"""Of random numbers."""
Share = Annotated[float, Field(ge=0, le=1), NUMBER]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400), NUMBER]
Threads = Annotated[int, Field(ge=1, le=1024), NUMBER]
"""Or processes, or other work at a time."""
Steps = Annotated[int, Field(ge=1, le=10_000_000), NUMBER]
"""Of the optimizer."""
Batch = Annotated[int, Field(ge=1, le=65_536), NUMBER]
"""Sequences that are computed together."""
Tokens = Annotated[int, Field(le=1 << 22), NUMBER]
"""Of one text, prompt or answer. How few there may be says the setting."""
Items = Annotated[int, Field(le=10_000_000), NUMBER]
"""Files, chunks, prompts: what is taken of a source or put to a model. How few there may be says the setting."""
Size = Annotated[int, Field(ge=1, le=1 << 40), NUMBER]
"""Bytes, or characters."""


def _checked(value: Any) -> Any:
    return paths.check(str(value)) if isinstance(value, (str, Path)) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("a blank text names nothing; leave the setting out")
    return value


GivenPath = Annotated[str, AfterValidator(paths.check)]
"""A path, or a name that may be one."""
GivenFile = Annotated[Path, BeforeValidator(_checked)]
Name = Annotated[str, AfterValidator(_not_blank)]
"""Of something that is kept elsewhere."""


class Config(BaseModel):
    """Frozen, refuses unknown fields, and takes the docstring under a field as its description.

    Every number has a lowest and a highest value: a type allows what nothing can mean, and what is infinite or a
    million times too large is found out in the middle of a run, or never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        parts = value if isinstance(value, (list, tuple)) else (value,)
        if any(isinstance(part, str) and "\0" in part for part in parts):
            raise ValueError("a NUL character is no part of any text here")
        return value

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes of the result, as JSON values, without those made by `Unkeyed`."""
        values: dict[str, Any] = _keyed(self)
        return values


def Unkeyed(default: Any, **kwargs: Any) -> Any:  # noqa: N802 - stands where `Field` would stand
    """A `Field` that changes how a stage works but not what it produces (worker counts, places, time-outs)."""
    return Field(default, json_schema_extra={"keyed": False}, **kwargs)


def _keyed(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {
            name: _keyed(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if field.json_schema_extra != {"keyed": False}
        }
    if isinstance(value, dict):
        return {str(name): _keyed(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_keyed(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no stable form in a stage key; mark its field Unkeyed")
