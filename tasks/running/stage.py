"""What makes a stage out of a pure function: its name, version, result, and what there is to see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from artifacts.configuration import Config
from artifacts.digest import Fingerprinted
from artifacts.presentation import Section
from artifacts.progress import Progress
from artifacts.schema import Handle
from artifacts.store import Store

H = TypeVar("H", bound=Handle)
P = TypeVar("P", bound=Handle)
MOST_SHOWN = 32
"""Artifacts whose sections are remembered: more than a run has, and a few megabytes of pictures."""
_SHOWN: dict[tuple[Callable[[Any], list[Section]], Path, str], list[Section]] = {}


class Parts(Protocol):
    """Gives a stage the parts of its artifact. The store keeps each by itself, under a key like a stage's: what changes
    one part builds no other again, and what was finished before a run was killed is not built twice."""

    def __call__(self, part: Stage[P], config: Config, progress: Progress, **inputs: Fingerprinted | None) -> P:
        """The part that `part` makes of config and inputs."""
        ...


@dataclass(frozen=True)
class Stage(Generic[H]):
    """A stage of the pipeline."""

    name: str
    """A noun or gerund: `sampling`."""
    version: int
    """Raise it when the same inputs give other bytes than before: earlier results are then not reused."""
    run: Callable[..., H]
    """`run(config, *, <inputs…>, workdir: Path, progress: Progress) -> handle`, with `path` set in the handle to
    what is to be published: `workdir`, or a folder in it. Pure but for the files that it writes into `workdir`."""
    produces: type[H]
    sections: Callable[[H], list[Section]]
    """What to look at, from the handle and its files. See `show`."""
    identify: Callable[[Any], str | None] | None = None
    """From the config: a fingerprint of what the stage reads from outside the pipeline (source files, a data set's
    revision, a machine), None for nothing. Part of the key, so that a change outside runs the stage again."""
    parallel: bool = False
    """`run` takes a `mapper` too, and has it compute its parts (`tasks.running.mapping`)."""
    in_parts: bool = False
    """`run` takes `parts` too, and puts its artifact together from what that finds or builds."""
    instant: bool = False
    """It takes a moment and little room: whoever only asks what would run has it run, to know what it would say."""
    leaves: bool = False
    """Its artifact leaves the store: `lineage.json` in it tells where it comes from."""
    needs_gpu: bool = True
    """Whether it must have the GPU, if the job uses one, to itself: to compute on it, or to look at what is free."""
    of: str = ""
    """What it is of where a run has it more than once: the form of the export that is measured. The key comes of the
    config."""
    keeps_workdir: bool = False
    """A failed or killed attempt's work directory is handed to the next attempt, which continues from it."""

    @property
    def label(self) -> str:
        """Its name, told from others of that name in the same run: `shipped-generation gguf-q4_k_m`."""
        return f"{self.name} {self.of}".rstrip()

    def show(self, handle: H) -> list[Section]:
        """What to look at. Drawn once: the dashboard shows a stage when it is done, the report all at the end."""
        key = (self.sections, handle.path, handle.model_dump_json())
        if key not in _SHOWN:
            while len(_SHOWN) >= MOST_SHOWN:
                del _SHOWN[next(iter(_SHOWN))]
            _SHOWN[key] = self.sections(handle)
        return _SHOWN[key]


class StageRunner(Protocol):
    """Who goes through a pipeline's stages: a run, or somebody who only asks what a run would do."""

    store: Store

    def stage(
        self,
        stage: Stage[H],
        config: Config,
        *,
        guard: Callable[[], object] | None = None,
        after: Handle | None = None,
        **inputs: Fingerprinted | None,
    ) -> H:
        """What the stage makes of config and inputs. `guard` is called before it is built and raises to forbid it;
        `after` is a handle that `config` was made from."""
        ...
