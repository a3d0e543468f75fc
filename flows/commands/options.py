"""What several commands take: the recipe with its changes, the store, JSON, names of stages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from artifacts import disks
from artifacts.errors import InputError
from flows.stages import STAGES

if TYPE_CHECKING:
    from flows.config import PipelineConfig

Recipe = Annotated[str, Parameter(help="A recipe's name (`codetune recipes`) or the path of a .yaml file.")]
Changes = Annotated[
    list[str] | None,
    Parameter(name="--set", help="Change a setting: training.max_steps=50. Repeatable; values are YAML.", negative=""),
]
StorePath = Annotated[
    Path | None, Parameter(name="--store", help="Where results go. Default: CODETUNE_STORE, or ./store.")
]
Json = Annotated[
    bool, Parameter(name="--json", help="Print one JSON object as the last line of standard output.", negative="")
]


def configure(recipe: str, changes: list[str] | None, store: Path | None) -> PipelineConfig:
    """The configuration of a recipe with its changes.

    Raises:
        InputError: an unknown recipe, field or value.
    """
    use_store(store)
    from flows.config import build

    return build(recipe, changes or [])


def use_store(store: Path | None) -> None:
    """Have everything of this process use that store, if one is given.

    Raises:
        InputError: it, or the one of the environment, is no folder.
    """
    if store:
        os.environ["CODETUNE_STORE"] = str(store)
    disks.folder_of(os.environ.get("CODETUNE_STORE") or "store")


def check_stages(names: list[str], option: str) -> None:
    """Refuse what is no stage.

    Raises:
        InputError: names the stages.
    """
    for name in names:
        if name not in STAGES:
            raise InputError(f"there is no stage “{name}”", field=option, remedy=f"use one of {', '.join(STAGES)}")
