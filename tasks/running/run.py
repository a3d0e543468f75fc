"""A run: how a stage becomes a Prefect task run, from the store or by building its artifact.

1. A verified artifact of the job's key in the store is served, and the task run ends as `Cached`. Prefect keeps no
   results of its own: its records name the code that reads them, and who may write one file would choose what runs.
2. Otherwise the function runs with the key's lock held and its result is published atomically. Only a `TransientError`
   is tried again.

The way from `Run.stage` to a stage's function: `run_stage` (the task), `Run._build`, `Job.build`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar
from uuid import uuid4

from prefect import task
from prefect._internal.control_listener import get_intent
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque

from artifacts import faults
from artifacts.configuration import Config
from artifacts.digest import Fingerprinted
from artifacts.errors import redacting_secrets
from artifacts.ledger import Entry
from artifacts.progress import Progress, Tick
from artifacts.schema import Handle
from artifacts.store import Store
from tasks.running import dashboard
from tasks.running.gpu_lock import GpuLock
from tasks.running.job import Built, Job
from tasks.running.mapping import WorkersConfig
from tasks.running.retries import FIRST_DELAY, RETRIES, is_transient
from tasks.running.stage import Stage

log = logging.getLogger(__name__)
H = TypeVar("H", bound=Handle)

StageState = Literal["ran", "cached", "resumed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one stage in one run."""

    stage: str
    state: StageState
    seconds: float
    key: str
    handle: Handle


class Observer(Protocol):
    """Somebody who watches a run: the terminal."""

    def started(self, stage: str) -> None: ...
    def ticked(self, stage: str, tick: Tick) -> None: ...
    def finished(self, outcome: Outcome) -> None: ...


OBSERVERS: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())
"""Who watches the runs of this context. Not a parameter of the flow: parameters are data that the dashboard shows."""


class Run:
    """One pass through the pipeline: where results go, what must not be reused, and what became of each stage.

    Used as a context (`with Run(…) as run`) it is in the store's ledger, so that nobody removes what it uses.

    Args:
        refresh: stages to build again though the store has them.
        from_stage: a stage to build again with everything that follows from it.
        recipe: what the ledger calls the run.
        gpu: what the job computes on; held from the first stage that needs it and is not in the store.
    """

    def __init__(
        self,
        store: Store,
        refresh: Collection[str] = (),
        workers: WorkersConfig | None = None,
        *,
        from_stage: str | None = None,
        recipe: str = "",
        gpu: GpuLock | None = None,
    ) -> None:
        self.store = store
        self.workers = workers or WorkersConfig()
        self.workers.check()
        self.refresh, self.from_stage, self.recipe = frozenset(refresh), from_stage, recipe
        self.gpu = gpu or GpuLock(None)
        self.outcomes: list[Outcome] = []
        self._task_runs: dict[str, State[Any]] = {}
        """By the fingerprints of what came of them."""
        self._renewed: set[str] = set()
        """Fingerprints of what was built again because of `from_stage`: what takes one of them follows from it."""
        self._entry: Entry | None = None

    def __enter__(self) -> Self:
        if caution := self.store.caution:
            log.warning("%s", caution)
        with faults.in_words(self.store.place):
            self._entry = self.store.ledger.open(flow_run.get_id() or str(uuid4()), self.recipe)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gpu.release()
        assert self._entry
        if error is None:
            self._entry.end("completed")
        elif isinstance(error, Exception):
            self._entry.end("failed", str(error))
        elif getattr(error, "killed", False):
            self._entry.end("killed", str(error))
        elif isinstance(error, TerminationSignal) and get_intent() != "cancel":
            self._entry.end("killed", "its process was told to stop")
        else:
            self._entry.end("cancelled")

    def stage(
        self,
        stage: Stage[H],
        config: Config,
        *,
        guard: Callable[[], object] | None = None,
        after: Handle | None = None,
        **inputs: Fingerprinted | None,
    ) -> H:
        """Serve the stage's artifact from the store, or build it if `guard` does not raise. Call from within a flow.

        An input that is None is one that the stage does without: neither passed on nor part of the key.
        `after`: a handle that `config` was made from.
        """
        started = time.monotonic()
        for observer in OBSERVERS.get():
            observer.started(stage.label)
        job = Job.of(stage, config, {name: value for name, value in inputs.items() if value is not None})
        origins = {value.fingerprint for value in (*job.inputs.values(), after) if value}
        follows = stage.name == self.from_stage or not origins.isdisjoint(self._renewed)
        forced = follows or stage.name in self.refresh
        if self._entry:
            # A flow run that is retried has built it again already.
            done = self._entry.before.get(job.place)
            forced = forced and not (done and done.state in ("ran", "resumed"))
            self._uses(job.place, resumable=stage.keeps_workdir, of=stage.of)
        found = None if forced else job.find(self.store)
        if not found and stage.needs_gpu:
            self.gpu.hold()  # before the key's lock: whoever has the GPU may wait for the key
        work = partial(Built, found, reused=True) if found else partial(self._build, job, guard, forced=forced)
        named = run_stage.with_options(name=stage.name, task_run_name=stage.label)
        upstream = [opaque(state) for name, state in self._task_runs.items() if name in origins]
        with faults.in_words(self.store.place):
            state = named(work, wait_for=upstream)
        built: Built[H] = state.result()
        handle = built.handle
        for place in handle.made_of:
            self._uses(place, part=True)
        self._task_runs |= dict.fromkeys(handle.known_by, state)
        if follows:
            self._renewed |= handle.known_by
        went_on = getattr(handle, "resumed_from", None) is not None
        became: StageState = "cached" if built.reused else "resumed" if went_on else "ran"
        outcome = Outcome(stage.label, became, time.monotonic() - started, job.key, handle)
        self.outcomes.append(outcome)
        if self._entry:
            with faults.in_words(self.store.place):
                self._entry.became(handle.place, became, outcome.seconds)
        for observer in OBSERVERS.get():
            observer.finished(outcome)
        return handle

    def _uses(self, place: str, *, resumable: bool = False, part: bool = False, of: str = "") -> None:
        """Note what is about to be looked for, so that nobody removes it."""
        if self._entry:
            with faults.in_words(self.store.place):
                self._entry.uses(place, resumable=resumable, part=part, of=of)

    def _build(self, job: Job[H], guard: Callable[[], object] | None, *, forced: bool) -> Built[H]:
        """Build what the store does not have, in sight of all who watch."""
        name = job.stage.label
        watchers = [partial(observer.ticked, name) for observer in OBSERVERS.get()]
        with redacting_secrets():
            with dashboard.progress_of(name) as shown:
                progress = Progress(shown, *watchers)
                built = job.build(
                    self.store,
                    progress,
                    workers=self.workers,
                    guard=guard,
                    forced=forced,
                    uses=partial(self._uses, part=True),
                )
            dashboard.publish(name, job.stage.show(built.handle))
        return built


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(FIRST_DELAY),
    retry_condition_fn=is_transient,
)
def run_stage(work: Callable[[], Built[Any]]) -> State[Built[Any]]:
    """A stage as a task run. `work` is a function because Prefect looks into models among a task's parameters, takes
    equal texts in them for results of other tasks, and copies them."""
    built = work()
    # Another run may have built it while this one waited.
    return Completed(name="Cached" if built.reused else None, data=built)
