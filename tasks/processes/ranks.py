"""Several training processes that work as one: who is who, and what they must agree on. Imports torch.

Every function may be called by a process that trains alone: it is the first of one.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number, from 0. The first one tells, measures and writes. Known before the group exists."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def any_of_us(flag: bool) -> bool:
    """Whether it holds for one of the processes. They all ask at the same point, and get the same answer. No GPU is
    waited for."""
    if count() == 1:
        return flag
    found = torch.tensor(int(flag))
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=_on_cpu())
    return bool(found.item())


@cache
def _on_cpu() -> Any:
    """The processes once more, talking to each other in main memory."""
    return dist.new_group(backend="gloo")


def as_first(value: Any) -> Any:
    """What the first process has."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all() -> None:
    """Go on when every process is here."""
    if count() > 1:
        dist.barrier()


def leave() -> None:
    """Take leave of the others."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
