"""What a row says of a setting, which settings there are, and where rows make what they need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from artifacts.errors import CodetuneError
from flows.config import PipelineConfig

T = TypeVar("T")
Look = Callable[["Lab", PipelineConfig], Any]
"""Runs a stage and says what came of it: nothing that differs from run to run, and no part of the key."""


@dataclass(frozen=True)
class Row:
    """A setting, two of its values, and what they do."""

    first: Any
    second: Any
    """Values; one that is made from files is a function of the lab."""
    look: Look
    given: Mapping[str, Any] | Callable[[Lab], Mapping[str, Any]] = field(default_factory=dict)
    """Settings by dotted name that both runs have."""
    seen: tuple[Any, Any] | None = None
    """What is seen with each, where a person can say."""
    apart: frozenset[str] | None = None
    """Of two dictionaries that are seen: the keys whose values differ, and no others."""
    least: frozenset[str] = frozenset()
    """The same where others may differ as well: one for each place where the setting is used."""

    def configs(self, name: str, lab: Lab) -> tuple[PipelineConfig, PipelineConfig]:
        """The pipeline's configuration with the one value and with the other."""
        made = []
        for value in (self.first, self.second):
            given = self.given(lab) if callable(self.given) else self.given
            settings: dict[str, Any] = {}
            for dotted, given_value in (*given.items(), (written(name), value)):
                put(settings, dotted, given_value(lab) if callable(given_value) else given_value)
            made.append(PipelineConfig.model_validate(settings))
        return made[0], made[1]


class Lab(ExitStack):
    """Where stages run for the table. Everything is made once, no run is repeated, and servers end with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._made: dict[Any, Any] = {}
        self._folders = 0

    def folder(self) -> Path:
        """A new one."""
        self._folders += 1
        made = self._folder / str(self._folders)
        made.mkdir()
        return made

    def once(self, make: Callable[[Lab], T]) -> T:
        """What `make` makes, the first time."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made

    def seen(self, look: Look, config: PipelineConfig) -> Any:
        """What there is to see with a configuration; the class and the field of an error are."""
        key = look, config.model_dump_json()
        if key not in self._made:
            self._made[key] = self.look(look, config)
        return self._made[key]

    def look(self, look: Look, config: PipelineConfig) -> Any:
        """The same, seen anew."""
        try:
            return look(self, config)
        except CodetuneError as error:
            return type(error).__name__, error.field


def settings(model: type[BaseModel] = PipelineConfig, at: str = "") -> Iterator[str]:
    """The keyed settings of a configuration by dotted name: `sampling.source[local].exclude`.

    Where there is a choice among kinds of settings, or between them and none, the choice is one as well.
    """
    for name, info in model.model_fields.items():
        if info.json_schema_extra == {"keyed": False}:
            continue
        kinds = [kind for kind in (info.annotation, *get_args(info.annotation)) if _is_model(kind)]
        several = len(kinds) > 1
        if not kinds or several or NoneType in get_args(info.annotation):
            yield at + name
        for kind in kinds:
            tag = f"[{kind.model_fields['kind'].default}]" if several else ""
            yield from (
                found for found in settings(kind, f"{at}{name}{tag}.") if not (several and found.endswith("].kind"))
            )


def setting(name: str) -> str:
    """Whose row it is: a setting that is used in several ways has one for each, with a word on it in brackets."""
    return name.partition(" (")[0]


def written(name: str) -> str:
    """A setting as people write it: without the kind."""
    return re.sub(r"\[.*?\]", "", setting(name))


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value in nested dictionaries."""
    *parents, last = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def at(tree: Any, dotted: str) -> Any:
    """The value in nested dictionaries; None where there is nothing."""
    for name in dotted.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> frozenset[str]:
    """The keys that only one has, or with another value."""
    return frozenset(key for key in {*first, *second} if first.get(key, ...) != second.get(key, ...))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
