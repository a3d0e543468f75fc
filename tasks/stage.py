"""What makes a stage out of a pure function: its name, version, result, and what there is to see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from artifacts.presentation import Section
from artifacts.schema import Handle

H = TypeVar("H", bound=Handle)


@dataclass(frozen=True)
class Stage(Generic[H]):
    """A stage of the pipeline."""

    name: str
    """A noun or gerund: `sampling`."""
    version: int
    """Raise it when the same inputs give other bytes than before: earlier results are then not reused."""
    run: Callable[..., H]
    """`run(config, *, <inputs…>, workdir: Path, progress: Progress) -> handle`, with `path=workdir` set in the handle.
    Pure but for the files that it writes into `workdir`."""
    produces: type[H]
    show: Callable[[H], list[Section]]
    """What to look at, from the handle and its files."""
    identify: Callable[[Any], str] | None = None
    """From the config: a fingerprint of what the stage reads from outside the pipeline (source files, a data set's
    revision, a machine). Part of the key, so that a change outside runs the stage again."""
    fans_out: bool = False
    """`run` takes a `mapper` too, and has it compute its parts (`tasks.mapping`)."""
    keeps_workdir: bool = False
    """A failed or killed attempt's work directory is handed to the next attempt, which continues from it."""
