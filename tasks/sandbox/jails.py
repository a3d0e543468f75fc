"""One jail: a fresh interpreter for one program, watched from outside, and nothing of it left afterwards."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from artifacts.schema import Record
from tasks.sandbox import settings
from tasks.sandbox.settings import Limits

Outcome = Literal["passed", "failed", "error", "timeout", "memory", "killed"]
_ENTRY = Path(__file__).parent / "inside" / "main.py"
_GRACE = 2.0
"""Seconds that the test's side has to say that time is up, before silence is taken for it. Starting counts as well."""
_GLANCE = 0.1
_FILES = 10_000
"""Entries of the scratch folder."""
_VERDICT = 1 << 16
"""Bytes that a verdict may have."""


class Program(Record):
    """A program and the test that it has to pass."""

    id: str
    source: str
    """What is not trusted: a module that defines `entry_point`."""
    test: str
    """Python that raises if the program is wrong. Names that it does not define are the program's."""
    entry_point: str = ""
    """What the program must define; the test sees the program's, whatever `prelude` calls so."""
    prelude: str = ""
    """Trusted code that the test needs beside it: imports, helpers, a reference solution."""


class Verdict(Record):
    """What became of a program, as seen from outside it."""

    id: str
    outcome: Outcome
    """`failed` is the test's assertion, `error` anything else that was raised, `killed` a crash or too much written."""
    detail: str = ""
    seconds: float = 0
    layers: dict[str, str] = Field(default={})
    """What the program's side said of its confinement; believed of the probe's own program only."""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def judge(program: Program, limits: Limits) -> Verdict:
    """Run one program in a jail of its own."""
    started = time.monotonic()
    for text, what in ((program.source, "program"), (program.test, "test"), (program.prelude, "test")):
        if "\0" in text:
            return Verdict(id=program.id, outcome="error", detail=f"the {what} has NUL bytes; Python refuses them")
    with _scratch() as folder, _started(folder) as process:
        assert process.stdin and process.stdout
        outcome, detail, layers = _watched(process, folder, program, limits)
    seconds = round(time.monotonic() - started, 3)
    return Verdict(id=program.id, outcome=outcome, detail=detail, seconds=seconds, layers=layers)


def _watched(
    process: subprocess.Popen[bytes], folder: Path, program: Program, limits: Limits
) -> tuple[Outcome, str, dict[str, str]]:
    deadline = time.monotonic() + limits.seconds + _GRACE
    inside = settings.of(limits) | {"source": program.source}
    test = {"test": program.test, "prelude": program.prelude, "entry_point": program.entry_point}
    assert process.stdin and process.stdout
    try:
        process.stdin.write(_message(inside) + _message(test))
        process.stdin.close()
    except BrokenPipeError:
        return "killed", "the sandbox ended before it had the program", {}
    said = b""
    while len(said) < _VERDICT:
        if time.monotonic() > deadline:
            return "timeout", "neither program nor test ended in time", {}
        if written := _too_much(folder, limits):
            return "killed", written, {}
        if select.select([process.stdout], [], [], _GLANCE)[0]:
            part = os.read(process.stdout.fileno(), _VERDICT)
            said += part
            if not part:
                break
    return _read(said, process)


def _read(said: bytes, process: subprocess.Popen[bytes]) -> tuple[Outcome, str, dict[str, str]]:
    try:
        verdict: dict[str, Any] = json.loads(said)
        outcome, detail, layers = verdict["outcome"], str(verdict["detail"]), dict(verdict["layers"])
    except (ValueError, KeyError, TypeError):
        outcome, detail, layers = "gone", "", {}
    if outcome in get_args(Outcome):
        return outcome, detail, layers
    who, status = "program" if detail else "test", process.wait(_GRACE)
    if status in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout", f"the {who} used up its processor time", layers
    if status:
        return "killed", f"the {who} died of {_signal_name(status)}", layers
    return "error", f"the {who} ended before it answered", layers


def _signal_name(number: int) -> str:
    return signal.Signals(abs(number)).name if abs(number) in set(signal.Signals) else f"signal {number}"


def _message(content: dict[str, Any]) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "big") + text


@contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A jail that has a session of its own; everything in it is killed at the end."""
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [settings.interpreter(), "-I", "-S", "-B", str(_ENTRY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        _ended(process)
        # Not yet waited for, the leader keeps the group's number from being given to another.
        _without(ProcessLookupError, lambda: os.killpg(process.pid, signal.SIGKILL))
        process.wait()
        for stream in (process.stdin, process.stdout):
            _without(OSError, stream.close if stream else lambda: None)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Give a jail the time to end its processes and wait for them, so that none is left when its verdict is told."""
    if process.returncode is None:
        descriptor = os.pidfd_open(process.pid)
        select.select([descriptor], [], [], _GRACE)
        os.close(descriptor)


def _without(error: type[Exception], action: Callable[[], None]) -> None:
    with suppress(error):
        action()


@contextmanager
def _scratch() -> Iterator[Path]:
    outer = Path(tempfile.mkdtemp(prefix="codetune-sandbox-"))
    folder = outer / "scratch"
    folder.mkdir()
    outer.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(outer, onerror=_open_and_retry)


def _open_and_retry(function: Callable[[str], None], path: str, _: object) -> None:
    """A program may have made folders that not even their owner can open."""
    for place in (Path(path).parent, Path(path)):
        if place.is_dir() and not place.is_symlink():
            place.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True) if function in (os.scandir, os.open, os.rmdir) else function(path)


def _too_much(folder: Path, limits: Limits) -> str | None:
    size = entries = 0
    for place, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        for name in files:
            try:
                size += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
            except OSError:
                continue
        if entries > _FILES:
            return f"the program made more than {_FILES:,} files"
    if size > limits.scratch_mib << 20:
        return f"the program wrote more than {limits.scratch_mib} MiB"
    return None
