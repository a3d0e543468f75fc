"""What the configuration of every stage has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen, refuses unknown fields, and takes the docstring under a field as its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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
