"""What a piece of work takes of memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pyarrow as pa


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python and Arrow hold for it at once."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + int(pool.max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
