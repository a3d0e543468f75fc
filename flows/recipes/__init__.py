"""Recipes: configurations with a name, each a YAML file that holds only what differs from the defaults."""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from typing import Any

from artifacts import paths, reading
from artifacts.errors import InputError
from flows.recipes import text

RIVALS = {"max_steps": "epochs", "epochs": "max_steps"}
"""Settings side by side of which one counts: what is set on top takes the other's place."""


def names() -> list[str]:
    """The recipes that come with codetune."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


def describe(name: str) -> str:
    """The comment at the head of a recipe, in one line."""
    lines = files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in head)


def load(name: str) -> dict[str, Any]:
    """The settings of a recipe, by its name or by the path of a YAML file, on top of those of its own `recipe`.

    Raises:
        InputError: there is no such recipe or file, it is not a YAML mapping, or it stands on itself.
    """
    seen: list[str] = []
    settings: dict[str, Any] = {}
    parent: Any = name
    while parent is not None:
        where = parent if parent in names() else str(paths.expanded(parent, "recipe").resolve())
        if where in seen:
            raise InputError(
                f"{name} stands on itself: {' → '.join(map(str, [*seen, where]))}",
                field="recipe",
                remedy="name another recipe in its setting `recipe`, or leave that out",
            )
        seen.append(where)
        below = _settings(parent)
        parent = below.pop("recipe", None)
        if parent is not None and not isinstance(parent, str):
            raise InputError(
                f"{paths.shown(repr(parent))} is no recipe", field="recipe", remedy="name a recipe, or a .yaml file"
            )
        settings = merge(below, settings)
    return settings


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mappings merged at every depth; one that names its `kind` replaces the other."""
    merged = {name: value for name, value in base.items() if over.get(RIVALS.get(name, "")) is None}
    for name, value in over.items():
        below = base.get(name)
        if isinstance(below, dict) and isinstance(value, dict) and "kind" not in value:
            merged[name] = merge(below, value)
        else:
            merged[name] = value
    return merged


def _settings(name: str) -> dict[str, Any]:
    """What one recipe says by itself."""
    try:
        settings = text.read(_read(name))
    except ValueError as error:
        raise InputError(f"{name} is not valid YAML: {error}", field="recipe", remedy="mend the file") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(
            f"{name} holds a {type(settings).__name__}, not settings",
            field="recipe",
            remedy="write it as `stage: {setting: value}`, as in the recipes that `codetune recipes` lists",
        )
    return settings


def _read(name: str) -> str:
    if name in names():
        return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    path = paths.expanded(name, "recipe")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"there is no recipe “{paths.shown(name)}”",
            field="recipe",
            remedy=f"use one of {', '.join(names())}, or the path of a .yaml file",
        )
    return reading.read_text(path, limit=text.LONGEST, field="recipe", remedy="check the path")
