"""Functional suites: problems with tests, as prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from artifacts.schema import FunctionalSuite
from tasks.generation.suites import Item


@dataclass(frozen=True)
class Asked:
    """One suite as it is put to the models."""

    name: str
    items: Sequence[Item]
    new_tokens: int
    """Most tokens of an answer."""
    stopped: Callable[[str], str]
    """A completion up to where the suite's rules end it."""
    ended: Callable[[str], bool]
    """Whether those rules have ended a completion, so that more of it is not needed."""
    record: FunctionalSuite
    notes: tuple[str, ...] = ()
