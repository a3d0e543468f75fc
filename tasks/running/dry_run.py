"""Going through the pipeline without running it: which artifacts a run would reuse, and which it would have to make.

`DryRun` takes the place of a `tasks.running.run.Run`, so the flow remains the one description of what follows what.
The result of a stage that would have to run is not known, nor is the key of what takes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from artifacts.configuration import Config
from artifacts.digest import Fingerprinted
from artifacts.progress import SILENT
from artifacts.schema import Handle
from artifacts.store import Damaged, Store
from tasks.running.job import Job
from tasks.running.stage import Stage

H = TypeVar("H", bound=Handle)


@dataclass(frozen=True)
class Unknown:
    """In place of the handle of a stage that would have to run first."""

    stage: str


@dataclass(frozen=True)
class PlannedStage:
    """What a run would find at one stage."""

    stage: Stage[Any]
    job: Job[Any] | None
    """None when its key is not known yet."""
    waits_for: tuple[str, ...] = ()
    """The stages that would have to run before the key is known."""
    found: bool = False
    """There is an artifact of that key."""
    damage: str | None = None
    """What is wrong with it."""

    @property
    def reused(self) -> bool:
        return self.found and self.damage is None


class DryRun:
    """One pass through the pipeline in which nothing is built and nothing removed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.steps: dict[str, PlannedStage] = {}
        """By the stage's label, in the order of the flow."""

    def stage(
        self,
        stage: Stage[H],
        config: Config,
        *,
        guard: Callable[[], object] | None = None,
        after: Handle | None = None,
        **inputs: Fingerprinted | None,
    ) -> H:
        """The stage's handle if a run would reuse it, or if it takes but a moment; else an `Unknown` in its place."""
        del guard, after
        given = {name: value for name, value in inputs.items() if value is not None}
        missing = tuple(value.stage for value in given.values() if isinstance(value, Unknown))
        if missing:
            self.steps[stage.label] = PlannedStage(stage, None, waits_for=missing)
            return cast(H, Unknown(stage.label))
        job = Job.of(stage, config, given)
        step, handle = self._look(job)
        self.steps[stage.label] = step
        if handle is None and stage.instant:
            # On the store's disk, where that can be written: what it says may depend on the room there.
            place = self.store.place if os.access(self.store.place, os.W_OK, effective_ids=True) else None
            with TemporaryDirectory(prefix=".try-", dir=place) as folder:
                return job.build(Store(Path(folder)), SILENT).handle
        return handle or cast(H, Unknown(stage.label))

    def _look(self, job: Job[H]) -> tuple[PlannedStage, H | None]:
        try:
            handle = self.store.open(job.stage.name, job.key, job.stage.produces)
        except FileNotFoundError:
            return PlannedStage(job.stage, job), None
        except Damaged as damage:
            return PlannedStage(job.stage, job, found=True, damage=str(damage)), None
        return PlannedStage(job.stage, job, found=True), handle
