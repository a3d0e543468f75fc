"""A job: one stage with its inputs, as a message. Who has it and a store can build the stage's artifact, anywhere.

The key is the sha256 of name, version, the part of the config that decides the bytes, the inputs' fingerprints and what
the stage reads from outside. No paths, times or host names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from artifacts import digest, faults
from artifacts.configuration import Config
from artifacts.digest import Fingerprinted
from artifacts.errors import InputError, PreflightRefused, TransientError
from artifacts.progress import Progress
from artifacts.schema import Handle
from artifacts.store import Damaged, Store
from tasks.running import lineage, provenance
from tasks.running.mapping import WorkersConfig
from tasks.running.retries import retrying
from tasks.running.stage import P, Stage
from tasks.running.workers import started

H = TypeVar("H", bound=Handle)


@dataclass(frozen=True)
class Built(Generic[H]):
    """What a job returns."""

    handle: H
    reused: bool
    """It was in the store."""


@dataclass(frozen=True)
class Job(Generic[H]):
    """Everything that decides a stage's artifact, and nothing of who builds it, or where."""

    stage: Stage[H]
    config: Config
    inputs: Mapping[str, Fingerprinted]
    """References to artifacts, and values, by the names that the stage's function has for them."""
    parts: Mapping[str, Any]
    """What the key is made of."""
    key: str

    @classmethod
    def of(cls, stage: Stage[H], config: Config, inputs: Mapping[str, Fingerprinted]) -> Job[H]:
        """The job. Looks at what the stage reads from outside.

        Raises:
            InputError: there is no such thing outside.
            TransientError: it cannot be reached, and trying again did not help.
        """
        parts = {
            "stage": stage.name,
            "version": stage.version,
            "config": config.keyed(),
            "inputs": {name: value.fingerprint for name, value in inputs.items()},
            "outside": retrying(partial(stage.identify, config)) if stage.identify else None,
        }
        return cls(stage, config, inputs, parts, digest.of_json(parts))

    @property
    def place(self) -> str:
        """Of the artifact in a store."""
        return f"{self.stage.name}/{self.key}"

    def find(self, store: Store) -> H | None:
        """The artifact, if the store has it and it may be used."""
        with faults.in_words(store.place):
            found = store.find(self.stage.name, self.key, self.stage.produces)
            if found:
                store.sweep(self.stage.name, self.key)
            return found

    def build(
        self,
        store: Store,
        progress: Progress,
        *,
        workers: WorkersConfig | None = None,
        guard: Callable[[], object] | None = None,
        forced: bool = False,
        uses: Callable[[str], object] = lambda place: None,
    ) -> Built[H]:
        """Build and publish the artifact, unless another run did so in the meantime.

        Args:
            workers: who computes the parts of a stage that has parts.
            guard: called just before the artifact is built, and not when it is served; raises to forbid it.
            forced: build it even if the store has it, and what it is put together from.
            uses: told of every artifact that it is put together from, before that is looked for.

        Raises:
            StageError: a fault of the disk, or what is worked with was removed.
        """
        stage = self.stage
        with faults.in_words(store.place), store.lock(stage.name, self.key):
            if not forced and (found := self.find(store)):
                return Built(found, reused=True)
            resumable = stage.keeps_workdir
            try:
                if guard:
                    guard()
                workdir = store.workdir(stage.name, self.key, keep=stage.keeps_workdir and not forced)
                began = time.monotonic()
                with ExitStack() as stack:
                    more: dict[str, Any] = {}
                    if stage.parallel:
                        more["mapper"] = stack.enter_context(started(workers or WorkersConfig()))
                    if stage.in_parts:
                        more["parts"] = StoredParts(store, forced, uses)
                    handle = stage.run(self.config, **self.inputs, **more, workdir=workdir, progress=progress)
                if stage.leaves:
                    lineage.write(handle, self.parts, self.inputs, store)
                origin = provenance.of(self.parts, self.inputs, round(time.monotonic() - began, 3))
                published = store.publish(stage.name, self.key, handle, handle.path, origin)
                resumable = False
            except (InputError, PreflightRefused, TransientError):
                raise
            except Exception as error:
                if gone := self._gone(store):
                    raise faults.removed(gone) from error
                raise
            finally:
                if not resumable:
                    store.drop_workdir(stage.name, self.key)
            return Built(published, reused=False)

    def _gone(self, store: Store) -> str | None:
        """What this stage works with and is not there any more, or not as it was: whatever a library says then."""
        if not store.place.is_dir():
            return f"the store {store.place}"
        places = {name: value.place for name, value in self.inputs.items() if isinstance(value, Handle) and value.place}
        for name, place in places.items():
            try:
                store.check(place)
            except (Damaged, OSError):
                return f"what {self.stage.name} takes as {name} ({place[:30]}…)"
        return None if store.has_workdir(self.place) else f"the work directory of {self.stage.name}"


@dataclass(frozen=True)
class StoredParts:
    """See `tasks.running.stage.Parts`."""

    store: Store
    forced: bool
    uses: Callable[[str], object]

    def __call__(self, part: Stage[P], config: Config, progress: Progress, **inputs: Fingerprinted | None) -> P:
        job = Job.of(part, config, {name: value for name, value in inputs.items() if value is not None})
        self.uses(job.place)
        found = None if self.forced else job.find(self.store)
        return found or job.build(self.store, progress, forced=self.forced).handle
