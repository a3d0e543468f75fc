"""Running model-written code: each program in a fresh, confined interpreter, judged from outside it.

It knows nothing of models or suites. `docs/evaluation.md` says what is guaranteed and what is not.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from artifacts import private
from artifacts.errors import StageError
from artifacts.schema import Protection
from tasks.sandbox.config import Limits
from tasks.sandbox.jails import PREFIX, Outcome, Program, Verdict, judge
from tasks.sandbox.protection import probe

__all__ = ["Limits", "Outcome", "Program", "Protection", "Verdict", "check", "probe", "run"]

DEFAULT_LIMITS = Limits()
_FILES_EACH = 10
"""Open files while a program starts or ends: pipes, folders."""


def check(*, allow_weak: bool = False, how: str = "--allow-weak-sandbox") -> Protection:
    """The protection of this machine. `how`: how a person allows too little.

    Raises:
        StageError: it is below the floor, and that was not allowed.
    """
    protection = probe()
    if not (protection.sufficient or (allow_weak and protection.level != "none")):
        raise StageError(
            f"the sandbox cannot hold model-written code on this machine: {protection.problem}",
            remedy="use Linux 5.13 or newer with Landlock and seccomp, or, on a machine that you can lose, "
            f"allow it with {how}",
        )
    return protection


def run(
    programs: Iterable[Program],
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
    *,
    allow_weak: bool = False,
) -> Iterator[Verdict]:
    """Judge programs side by side; verdicts come in the programs' order.

    Args:
        workers: programs at a time; the processors that this process may use if None.

    Raises:
        InputError: other users may exchange what is in the temporary folder.
        StageError: the protection is below the floor, or no jail can be made.
    """
    check(allow_weak=allow_weak)
    private.remove_left_behind(PREFIX)
    # fewer at a time if this process may not open the files that so many take
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(list(Path("/proc/self/fd").iterdir()))
    workers = max(1, min(workers or len(os.sched_getaffinity(0)), free // _FILES_EACH))
    return _judged(iter(programs), limits, workers)


def _judged(programs: Iterator[Program], limits: Limits, workers: int) -> Iterator[Verdict]:
    waiting: deque[Future[Verdict]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jail")
    try:
        for program in programs:
            waiting.append(pool.submit(judge, program, limits))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
