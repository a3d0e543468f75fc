"""Have Prefect's clients repeat a request that meets no server, since the server is being started again.

By itself a client does so only when it was answered before, and a run makes many new ones: each task has its own, in
threads, in the processes of a pool and on other machines. And what is to be told of stages is given up sooner than a
server has started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

ATTEMPTS = 90
"""Of telling what happened, a second between two, while a server starts again: a minute on a busy machine."""
RETRIES = 7
"""Of a request, the first after two seconds and each after twice as long as the one before: four minutes in all."""


def insist(while_: Callable[[], bool] = lambda: True) -> None:
    """From now on every client of this process insists, as long as `while_()` says."""

    def keep(name: str, patient: Any, hasty: Any) -> property:
        return property(lambda _: patient if while_() else hasty, lambda one, value: vars(one).update({name: value}))

    for kind, name, patient, hasty in _changed():
        setattr(kind, name, keep(name, patient, hasty))
    _set_retries(lambda: max(RETRIES if while_() else 0, PREFECT_CLIENT_MAX_RETRIES.value()))


@contextmanager
def insistence(while_: Callable[[], bool]) -> Iterator[None]:
    """Insist within the block."""
    insist(while_)
    try:
        yield
    finally:
        for kind, name, *_ in _changed():
            delattr(kind, name)
        _set_retries(PREFECT_CLIENT_MAX_RETRIES.value)


def _set_retries(number: Callable[[], int]) -> None:
    """Where clients look: not in the settings, which each task run and each process has of its own."""
    from prefect.client import base

    vars(base).update(PREFECT_CLIENT_MAX_RETRIES=SimpleNamespace(value=number))


def _changed() -> list[tuple[type, str, Any, Any]]:
    """What of Prefect's classes is another value meanwhile: while a server is hoped for, and once it is not."""
    from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
    from prefect.events.clients import PrefectEventsClient

    return [
        (PrefectHttpxAsyncClient, "_has_connected", True, False),
        (PrefectHttpxSyncClient, "_has_connected", True, False),
        (PrefectEventsClient, "_reconnection_attempts", ATTEMPTS, 0),
    ]
