"""What is tried again, and when: only what fails with a `TransientError`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from artifacts import variables
from artifacts.errors import TransientError

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRIES = 3
FIRST_DELAY = variables.number("CODETUNE_RETRY_SECONDS", most=3600) or 5.0
"""Seconds before the first retry; every further one waits twice as long."""


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
