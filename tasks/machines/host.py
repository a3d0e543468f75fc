"""Cores and memory that this process may use: what the machine has, within its container's limits."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Cores that this process may use: its affinity, and what a container's quota comes to, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(CGROUPS)
    return max(1, min(cores, quota)) if quota else cores


def cpu_quota(root: Path) -> int | None:
    """Whole cores that cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us`) grants; None for no limit."""
    if (v2 := _words(root / "cpu.max")) and v2[0] != "max":
        return -(-int(v2[0]) // int(v2[1]))
    quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return -(-int(quota[0]) // int(period[0]))
    return None


def host_memory() -> tuple[int, int]:
    """Bytes that this process may use at most, and bytes free now, a container's limit respected."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = memory_limit(CGROUPS)
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    return limit, min(memory.available, max(0, limit - used))


def memory_limit(root: Path) -> tuple[int | None, int]:
    """Limit and use in bytes, of cgroup v2 or v1; pages of files, which give way under pressure, do not count."""
    for limit_file, use_file, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        limit, used = _words(root / limit_file), _words(root / use_file)
        if limit and used and limit[0].isdigit():
            words = _words(root / stat)
            givable = int(words[words.index(cache) + 1]) if cache in words else 0
            return int(limit[0]), int(used[0]) - givable
    return None, 0


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
