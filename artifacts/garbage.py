"""How often Python looks for garbage.

A run imports some four thousand modules. With Python's own thresholds its collector goes over them again and again
while they are loaded, and finds nothing: a sixth of the time of importing torch, transformers, TRL and PEFT.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (20_000, 20, 100)
"""Thresholds of `gc.set_threshold`; Python's own are 700, 10, 10."""


@contextmanager
def collected_seldom() -> Iterator[None]:
    """A block that imports much."""
    usual = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
