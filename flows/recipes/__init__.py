"""Recipes: configurations with a name, each a YAML file that holds only what differs from the defaults."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from artifacts.errors import InputError


def names() -> list[str]:
    """The recipes that come with codetune."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


def describe(name: str) -> str:
    """The comment at the head of a recipe, in one line."""
    lines = files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in lines[: _head_length(lines)]]
    return " ".join(head)


def load(name: str) -> dict[str, Any]:
    """The settings of a recipe, by its name or by the path of a YAML file, on top of those of its own `recipe`.

    Raises:
        InputError: there is no such recipe or file, or it is not a YAML mapping.
    """
    text = _read(name)
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not valid YAML: {error}", field="recipe", remedy="mend the file") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise InputError(
            f"{name} holds a {type(settings).__name__}, not settings",
            field="recipe",
            remedy="write it as `stage: {setting: value}`, as in the recipes that `codetune recipes` lists",
        )
    parent = settings.pop("recipe", None)
    return merge(load(str(parent)), settings) if parent else settings


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mappings merged at every depth; one that names its `kind` replaces the other."""
    merged = dict(base)
    for name, value in over.items():
        below = base.get(name)
        if isinstance(below, dict) and isinstance(value, dict) and "kind" not in value:
            merged[name] = merge(below, value)
        else:
            merged[name] = value
    return merged


def _read(name: str) -> str:
    if name in names():
        return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"there is no recipe “{name}”",
            field="recipe",
            remedy=f"use one of {', '.join(names())}, or the path of a .yaml file",
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}", field="recipe", remedy="check the path") from error


def _head_length(lines: list[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
