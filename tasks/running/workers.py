"""Parts of a stage as Prefect tasks, on the task runner that the configuration names.

Each part is a task run of its own in the dashboard, below the stage. It does not read or write the store: a worker on
another machine needs codetune in the same versions, the Prefect server's address as the run has it, and, where the
source is on the hub, the hub.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from prefect import engine, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from artifacts.errors import StageError, redacting_secrets
from tasks.processes.child import die_with
from tasks.running.insistence import insist
from tasks.running.mapping import Mapper, Pending, WorkersConfig, in_order

T = TypeVar("T")
R = TypeVar("R")


def _begin(parent: int) -> None:
    """What a pool's process does first."""
    die_with(parent)  # waiting for more work, it would outlive a parent that is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it, too, and is for the parent
    insist()
    engine.handle_engine_signals = _as_error  # type: ignore[assignment]


@contextmanager
def _as_error(_run: UUID | None = None) -> Iterator[None]:
    """In place of Prefect's, which makes a SystemExit of every error. The thread in the parent that waits for the pool
    would end by it, and the parent would wait for ever."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise StageError(f"a part ended its process: {type(error).__name__}") from error


def _task_runner(config: WorkersConfig) -> TaskRunner[Any]:
    match config.runner:
        case "threads":
            return ThreadPoolTaskRunner(max_workers=config.count)
        case "processes":
            return ProcessPoolTaskRunner(config.count, initializer=_begin, initargs=(os.getpid(),))
        case "dask":
            from prefect_dask.task_runners import DaskTaskRunner

            return cast("TaskRunner[Any]", DaskTaskRunner(address=config.address))


@contextmanager
def started(config: WorkersConfig) -> Iterator[Mapper]:
    """The mapper of a configuration, while its task runner is up.

    Raises:
        InputError: the runner is not installed.
        StageError: the Dask scheduler does not answer.
    """
    config.check()
    others = {*multiprocessing.active_children()}
    parent = TaskRunContext.get()
    # The stage's task run is the parent of its parts, without its function and parameters: they would travel along.
    light: Any = TaskRunContext(**dict(parent) | {"task": run_part, "parameters": {}}) if parent else nullcontext()
    with light, _task_runner(config) as runner:
        if config.runner == "dask":
            _connect(runner, config.address)
        try:
            yield PrefectMapper(runner, config.count)
        except BrokenProcessPool as error:
            raise StageError(
                "a process that computed parts was killed, as the system does when memory runs out",
                field="workers.count",
                remedy="take fewer processes, or workers.runner=threads",
            ) from error
        except BaseException:
            # Nobody waits for what they still compute, or for a server that will not come back.
            for process in {*multiprocessing.active_children()} - others:
                process.kill()
            raise


class PrefectMapper:
    """Submits each part to a task runner that is up."""

    def __init__(self, runner: TaskRunner[Any], workers: int) -> None:
        self._runner, self.workers = runner, workers

    def map(
        self, title: str, work: Callable[[T], R], items: Iterable[T], ahead: Callable[[], int] | None = None
    ) -> Generator[R, None, None]:
        """See `Mapper`."""
        numbers = count(1)

        def submit(item: T) -> Pending[R]:
            part = run_part.with_options(task_run_name=f"{title} {next(numbers)}")
            return _Unwrapped(self._runner.submit(part, {"part": Part(work, item)}))

        return in_order(submit, items, ahead or (lambda: self.workers))


class Part:
    """What is to be done. A plain class: Prefect looks into collections, dataclasses and models among parameters."""

    def __init__(self, work: Callable[[Any], Any], item: Any) -> None:
        self.work, self.item = work, item


class Done(Generic[R]):
    """What came of it; plain for the same reason."""

    def __init__(self, value: R) -> None:
        self.value = value


@task(name="part", cache_policy=NO_CACHE, persist_result=False)
def run_part(part: Part) -> Done[Any]:
    """Compute one part, wherever this runs."""
    with redacting_secrets():
        return Done(part.work(part.item))


class _Unwrapped(Generic[R]):
    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> R:
        done: Done[R] = self._future.result()
        return done.value


def _connect(runner: Any, address: str | None) -> None:
    try:
        client = runner.client  # connects when it is first looked at
    except (OSError, TimeoutError, ValueError) as error:
        raise StageError(
            f"no Dask scheduler answers at {address}: {error}",
            field="workers.address",
            remedy="start one with `dask scheduler`, and `dask worker ADDRESS` on each machine",
        ) from error
    from tasks.running.cluster import Insistent

    client.register_plugin(Insistent())
