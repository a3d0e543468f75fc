"""The policy that every stage runs under: key, lock, retry, work directory, publishing, dashboard.

`Run.stage` makes a Prefect task run of a stage:

1. The key is the sha256 of name, version, the part of the config that decides the bytes, the inputs' fingerprints and
   what the stage reads from outside. No paths, times or host names.
2. A verified artifact of that key in the store is served, and the task run ends as `Cached`. Prefect keeps no results
   of its own: its records name the code that reads them, and who may write one file would choose what runs.
3. Otherwise the function runs with the key's lock held and its result is published atomically. Only a `TransientError`
   is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar
from uuid import uuid4

from prefect import Task, task
from prefect._internal.control_listener import get_intent
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from artifacts import digest, faults, variables
from artifacts.configuration import Config
from artifacts.errors import InputError, PreflightRefused, TransientError, redacting_secrets
from artifacts.ledger import Entry
from artifacts.progress import Progress, Tick
from artifacts.schema import Handle
from artifacts.store import Damaged, Store
from tasks.running import dashboard, lineage, provenance
from tasks.running.gpu_lock import GpuLock
from tasks.running.mapping import WorkersConfig
from tasks.running.stage import Stage
from tasks.running.workers import started

log = logging.getLogger(__name__)
H = TypeVar("H", bound=Handle)
T = TypeVar("T")

RETRIES = 3
FIRST_DELAY = variables.number("CODETUNE_RETRY_SECONDS", most=3600) or 5.0
"""Seconds before the first retry; every further one waits twice as long."""

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


class Job(Generic[H]):
    """One stage with its inputs: everything needed to build its artifact, and the result once it is built.

    A plain class: Prefect looks into dataclasses and models among a task's parameters, and copies them.
    """

    def __init__(
        self, stage: Stage[H], config: Config, inputs: dict[str, digest.Fingerprinted], *, store: Store, forced: bool
    ) -> None:
        self.stage, self.config, self.inputs, self.store = stage, config, inputs, store
        self.workers = WorkersConfig()
        """Who computes the parts of a stage that fans out."""
        self.guard: Callable[[], object] | None = None
        """Called just before the artifact is built, and not when it is served; raises to forbid it."""
        self.forced = forced
        """Build it even if the store has it."""
        self.renews = False
        """What takes its result is built again too."""
        self.parts: dict[str, Any] = {
            "stage": stage.name,
            "version": stage.version,
            "config": config.keyed(),
            "inputs": {name: value.fingerprint for name, value in inputs.items()},
            "outside": retrying(partial(stage.identify, config)) if stage.identify else None,
        }
        self.key = digest.of_json(self.parts)
        self.place = f"{stage.name}/{self.key}"
        self.result: H | None = None
        self.reused = False
        """The result was in the store."""

    def find(self) -> H | None:
        """The artifact, if it is there and may be used."""
        if self.forced:
            return None
        with faults.in_words(self.store.place):
            found = self.store.find(self.stage.name, self.key, self.stage.produces)
            if found:
                self.store.sweep(self.stage.name, self.key)
            return found

    def build(self, progress: Progress) -> H:
        """Build and publish the artifact, unless another run did so in the meantime."""
        with faults.in_words(self.store.place), self.store.lock(self.stage.name, self.key):
            if found := self.find():
                self.result, self.reused = found, True
                return found
            try:
                self.result = self._build(progress)
            except (InputError, PreflightRefused, TransientError):
                raise
            except Exception as error:
                if gone := self._gone():
                    raise faults.removed(gone) from error
                raise
            finally:
                if self.result or not self.stage.keeps_workdir:
                    self.store.drop_workdir(self.stage.name, self.key)
            return self.result

    def _gone(self) -> str | None:
        """What this stage works with and is not there any more, or not as it was: whatever a library says then."""
        store = self.store
        if not store.place.is_dir():
            return f"the store {store.place}"
        places = {name: value.place for name, value in self.inputs.items() if isinstance(value, Handle) and value.place}
        for name, place in places.items():
            try:
                store.check(place)
            except (Damaged, OSError):
                return f"what {self.stage.name} takes as {name} ({place[:30]}…)"
        return None if store.has_workdir(self.place) else f"the work directory of {self.stage.name}"

    def _build(self, progress: Progress) -> H:
        stage, store = self.stage, self.store
        if self.guard:
            self.guard()
        workdir = store.workdir(stage.name, self.key, keep=stage.keeps_workdir and not self.forced)
        began = time.monotonic()
        with ExitStack() as stack:
            more = {"mapper": stack.enter_context(started(self.workers))} if stage.parallel else {}
            handle = stage.run(self.config, **self.inputs, **more, workdir=workdir, progress=progress)
        if stage.leaves:
            lineage.write(handle, self.parts, self.inputs, store)
        seconds = round(time.monotonic() - began, 3)
        return store.publish(stage.name, self.key, handle, handle.path, provenance.of(self.parts, self.inputs, seconds))


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
        self._task_results: dict[str, Any] = {}
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
        **inputs: digest.Fingerprinted | None,
    ) -> H:
        """Serve the stage's artifact from the store, or build it if `guard` does not raise. Call from within a flow.

        An input that is None is one that the stage does without: neither passed on nor part of the key.
        `after`: a handle that `config` was made from.
        """
        started = time.monotonic()
        for observer in OBSERVERS.get():
            observer.started(stage.name)
        given = {name: value for name, value in inputs.items() if value is not None}
        job = Job(stage, config, given, store=self.store, forced=False)
        job.guard, job.workers, job.forced = guard, self.workers, self._is_forced(job, after)
        self._note(job)
        job.result = job.find()
        job.reused = job.result is not None
        if not job.reused and stage.needs_gpu:
            self.gpu.hold()  # before the key's lock: whoever has the GPU may wait for the key
        known = {name for value in (*given.values(), after) if value for name in _known_by(value)}
        upstream = [result for name, result in self._task_results.items() if name in known]
        staged = run_stage.with_options(name=stage.name, task_run_name=stage.name)
        with faults.in_words(self.store.place):
            recorded = staged(job.key, job, upstream)
        handle = job.result
        assert handle is not None
        self._task_results |= dict.fromkeys(handle.known_by, recorded)
        if job.renews:
            self._renewed |= handle.known_by
        outcome = Outcome(stage.name, _state(job), time.monotonic() - started, job.key, handle)
        self.outcomes.append(outcome)
        if self._entry:
            with faults.in_words(self.store.place):
                self._entry.became(handle.place, outcome.state, outcome.seconds)
        for observer in OBSERVERS.get():
            observer.finished(outcome)
        return handle

    def _is_forced(self, job: Job[Any], after: Handle | None) -> bool:
        """Whether the artifact must be built though it may be there."""
        name, taken = job.stage.name, {value.fingerprint for value in job.inputs.values()}
        follows = name == self.from_stage or bool(self._renewed & (taken | set(after.known_by if after else ())))
        job.renews = follows
        # A flow run that is retried has built it again already.
        done = self._entry.before.get(job.place) if self._entry else None
        return (follows or name in self.refresh) and not (done and done.state in ("ran", "resumed"))

    def _note(self, job: Job[Any]) -> None:
        if self._entry:
            with faults.in_words(self.store.place):
                self._entry.uses(job.place, resumable=job.stage.keeps_workdir)


def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: Prefect asks this after a failure."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def retrying(work: Callable[[], T]) -> T:
    """Run something small that belongs to no task, with the same retries as a stage."""
    for attempt in range(RETRIES):
        try:
            return work()
        except TransientError as error:
            log.warning("%s; trying again", error.problem)
            time.sleep(FIRST_DELAY * 2**attempt)
    return work()


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(FIRST_DELAY),
    retry_condition_fn=is_transient,
)
def run_stage(key: str, job: Job[Any], upstream: list[Any]) -> Handle | State[Handle]:
    """Run one stage. `upstream` only tells the dashboard which task runs this one builds on."""
    del key, upstream
    if job.reused:
        return Completed(name="Cached", data=job.result)
    name = job.stage.name
    watchers = [partial(observer.ticked, name) for observer in OBSERVERS.get()]
    with redacting_secrets():
        with dashboard.progress_of(name) as shown:
            handle: Handle = job.build(Progress(shown, *watchers))
        dashboard.publish(name, job.stage.show(handle))
    # Another run may have built it while this one waited.
    return Completed(name="Cached", data=handle) if job.reused else handle


def _known_by(value: digest.Fingerprinted) -> frozenset[str]:
    return value.known_by if isinstance(value, Handle) else frozenset({value.fingerprint})


def _state(job: Job[Any]) -> StageState:
    if job.reused:
        return "cached"
    return "resumed" if getattr(job.result, "resumed_from", None) is not None else "ran"
