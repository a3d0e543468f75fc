"""What several commands take: the recipe with its changes, the store, JSON, names of stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from artifacts import disks, paths
from artifacts.errors import InputError
from flows.stages import STAGES

if TYPE_CHECKING:
    from flows.config import PipelineConfig


def given_path(_: Any, tokens: Sequence[Token]) -> Path:
    """Of an option that is a path. An empty one is not the current folder, and `~` is the home folder."""
    return Path(paths.check(tokens[0].value)).expanduser()


def not_blank(_: Any, value: str | None) -> None:
    """Of an option that has another default than nothing: a blank one is a mistake."""
    if value is not None and not value.strip():
        raise ValueError("It is blank: leave the option out for its default.")


SECONDS = Number(gt=0, lte=7 * 86_400)
"""Bounds of numbers on the command line: those of the settings, but `artifacts.configuration` takes long to load."""
THREADS = Number(gte=1, lte=1024)
TOKENS = Number(gte=1, lte=1 << 22)
LINES = Number(gte=1, lte=10**9)
RUNS = Number(gte=0, lte=10**9)
PORTS = Number(gte=1, lte=65_535)

Model = Annotated[
    str,
    Parameter(
        help="Which exported model: a version (v3), `champion`, the beginning of an id (`codetune models --all`), a "
        "recipe for the model of its newest run, or its folder."
    ),
]
Recipe = Annotated[str, Parameter(help="A recipe's name (`codetune recipes`) or the path of a .yaml file.")]
Changes = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        help="Change a setting: training.max_steps=50. Repeatable; values are YAML. Default: the recipe as it is.",
        negative="",
    ),
]
Budget = Annotated[
    str | None,
    Parameter(
        name="--budget",
        help="Time for all optimizer steps: 90s, 45m, 2h. As many are trained as fit, and no more than the recipe has. "
        "The same as --set preflight.budget=2h. Default: no limit.",
    ),
]
StorePath = Annotated[
    Path | None,
    Parameter(name="--store", converter=given_path, help="Where results go. Default: CODETUNE_STORE, or ./store."),
]
Json = Annotated[
    bool, Parameter(name="--json", help="Print one JSON object as the last line of standard output.", negative="")
]


def configure(recipe: str, changes: list[str] | None, store: Path | None, budget: str | None = None) -> PipelineConfig:
    """The configuration of a recipe with its changes.

    Raises:
        InputError: an unknown recipe, field or value.
    """
    use_store(store)
    from flows.config import build

    return build(recipe, [*(changes or []), *([] if budget is None else [f"preflight.budget={budget}"])])


def say_what_is_looked_at(what: str) -> None:
    """Before it is: a hub that does not answer takes its time, and so does much code."""
    from flows.output import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"looking at {what} …", style="dim", markup=False)


def use_store(store: Path | None) -> None:
    """Have everything of this process use that store, if one is given.

    Raises:
        InputError: it, or the one of the environment, is no folder.
    """
    if store:
        os.environ["CODETUNE_STORE"] = str(store)
    disks.folder_of(os.environ.get("CODETUNE_STORE") or "store")


def check_stages(names: Sequence[str], option: str) -> None:
    """Refuse what is no stage.

    Raises:
        InputError: names the stages.
    """
    for name in names:
        if name not in STAGES:
            raise InputError(f"there is no stage “{name}”", field=option, remedy=f"use one of {', '.join(STAGES)}")
