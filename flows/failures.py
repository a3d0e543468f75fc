"""How a flow ends that fails: with a state that says what is wrong and what to do, and without a traceback for people.

An exception that leaves a flow's function Prefect would write to a file of its own, whatever is set, and tell with a
traceback of its engine. A state that is returned is neither written nor told twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from prefect import State
from prefect.states import Failed

from artifacts.errors import CodetuneError, redacting_secrets
from artifacts.escaping import code, quoted, visible
from artifacts.presentation import Section, Text
from flows.notification import explain
from tasks.running import dashboard

log = logging.getLogger(__name__)
T = TypeVar("T")


def told(work: Callable[[], T]) -> T | State[T]:
    """What a flow's function is to return: what the work gives, or why it failed, which the run itself shows too."""
    try:
        with redacting_secrets():
            return work()
    except Exception as error:
        if not isinstance(error, CodetuneError):
            log.error("this is a fault of codetune or of a library", exc_info=error)
        dashboard.publish("run", [_section(error)])
        said = str(error) if isinstance(error, CodetuneError) else f"{type(error).__name__}: {error}"
        return Failed(message=visible(said), data=error)


def _section(error: Exception) -> Section:
    """What a person needs to hear, on the run itself."""
    said = explain(error)
    where = f"{code(said['field'])}: " if said["field"] else ""
    problem, remedy = quoted(said["problem"]), quoted(said["remedy"] or "See the log.")
    text = f"**What is wrong**\n\n{where}{problem}\n\n**What to do**\n\n{remedy}"
    return Section("failure", "Why the run failed", (Text(text),))
