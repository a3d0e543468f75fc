"""Processes that must not outlive this one, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from artifacts.errors import StageError
from artifacts.installation import safe

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
SHORT_LIFE = 10.0
"""Seconds: what ends sooner than this after its start will not live longer when it is started again."""


def spawn(
    command: list[str], *, environment: Mapping[str, str], folder: Path | None = None, output: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a Python module (`["-m", …]`) that gets a SIGTERM when this process ends, even by `kill -9`.

    It lives in a session of its own: Ctrl-C reaches this process only, which ends it in good order. Call from the main
    thread: the kernel's signal comes when the thread that started the process is gone.
    """
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_follow,
    )


def _follow() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and a worker ends by it
    hear_of_parents_end(signal.SIGTERM)


def hear_of_parents_end(number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent is gone (exactly: the thread of it that started this process)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def end_within(seconds: float) -> None:
    """Have the kernel end this process if it is still there by then: what Prefect has left to tell a server, it waits
    for at exit, and for a server that is gone for good it waits for ever."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def adopt_orphans() -> None:
    """Become the parent of what children leave behind when they are killed, so that `below` finds it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(children: Container[int]) -> None:
    """Let go of ended processes that were adopted, not started here. One that was started here and has ended stays for
    whoever asks for its status, and those behind it until then."""
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in children:
            os.waitpid(ended.si_pid, os.WNOHANG)


def below(parents: Iterable[int]) -> list[psutil.Process]:
    """The children of processes, as far as these live."""
    found: list[psutil.Process] = []
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(parent).children()
    return found


def end(some: list[psutil.Process], grace: float) -> None:
    """SIGTERM, `grace` seconds, SIGKILL."""
    for deliver in (psutil.Process.terminate, psutil.Process.kill):
        for process in some:
            with suppress(psutil.NoSuchProcess):
                deliver(process)
        _, some = psutil.wait_procs(some, timeout=grace)


class Service:
    """A process that is kept running: started again when it ends, unless it ends at once.

    Args:
        name: what it is, for people.
        start: starts it.
        log: the file that it writes to, if it does; its end goes into the error.
    """

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]], log: Path | None = None) -> None:
        self.name, self._start, self.log = name, start, log
        self._begin()

    def _begin(self) -> None:
        self._written = self.log.stat().st_size if self.log and self.log.exists() else 0
        self.process, self._started = self._start(), time.monotonic()

    def restart(self) -> None:
        """Start it again after it has ended.

        Raises:
            StageError: it did not live long.
        """
        if time.monotonic() - self._started < SHORT_LIFE:
            raise self.failure()
        self._begin()

    def failure(self) -> StageError:
        """What to say when it does not come up."""
        said = "".join(f"\n    {line}" for line in self.said().splitlines()[-8:])
        where = f"{self.log} has all that it said" if self.log else "what it said stands above"
        return StageError(f"the {self.name} ended with status {self.process.poll()}{said}", remedy=where)

    def said(self) -> str:
        """What it wrote since it was started, as far as there is a file of it."""
        if self.log is None:
            return ""
        with self.log.open("rb") as file:
            file.seek(self._written)
            return file.read(1 << 20).decode(errors="replace")

    def stop(self, grace: float) -> None:
        """SIGTERM, `grace` seconds, SIGKILL; returns when it is gone."""
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def own_environment(**changes: str) -> dict[str, str]:
    """This process's environment with some variables set, for a Python process of ours."""
    return safe({**os.environ, **changes})
