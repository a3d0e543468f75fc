"""One jail: a fresh interpreter for one program, watched from outside, and nothing of it left afterwards."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SkipValidation

from artifacts import private
from artifacts.errors import StageError
from artifacts.schema import Record
from tasks.sandbox import config
from tasks.sandbox.config import Limits
from tasks.sandbox.inside import watching

Outcome = Literal["passed", "failed", "error", "timeout", "memory", "killed"]
_ENTRY = Path(__file__).parent / "inside" / "main.py"
_GRACE = 2.0
"""Seconds that the test's side has to say that time is up, before silence is taken for it. Starting counts as well."""
PREFIX = "codetune-sandbox-"
"""Of the names of scratch folders."""
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_VERDICT = 1 << 16
"""Bytes that a verdict may have."""


class Program(Record):
    """A program and the test that it has to pass."""

    id: str
    source: Annotated[str, SkipValidation]  # models and files write what is no text, too: that is its verdict
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
    stopped: bool = False
    """It passed, and the program raised `StopIteration`: that ends a loop of the test's as if no case were left."""
    layers: dict[str, str] = Field(default={})
    """What the program's side said of its confinement; believed of the probe's own program only."""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def judge(program: Program, limits: Limits) -> Verdict:
    """Run one program in a jail of its own. Whatever it does, the answer is a verdict.

    Raises:
        StageError: no jail can be made on this machine.
    """
    started = time.monotonic()
    for text, what in ((program.source, "program"), (program.test, "test"), (program.prelude, "test")):
        if (found := _NOT_TEXT.search(text)) is not None:
            name = "NUL bytes" if found[0] == "\0" else "lone surrogates"
            return Verdict(id=program.id, outcome="error", detail=f"the {what} has {name}; Python refuses them")
    with _scratch() as folder, _started(folder) as process:
        verdict = _watched(process, program, limits)
    return verdict.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def _watched(process: subprocess.Popen[bytes], program: Program, limits: Limits) -> Verdict:
    deadline = time.monotonic() + limits.seconds + _GRACE
    inside = config.of(limits) | {"source": program.source}
    test = {"test": program.test, "prelude": program.prelude, "entry_point": program.entry_point}
    assert process.stdin and process.stdout
    try:
        process.stdin.write(_message(inside) + _message(test))
        process.stdin.close()
    except BrokenPipeError:
        return Verdict(id=program.id, outcome="killed", detail="the sandbox ended before it had the program")
    said, ready = b"", select.poll()
    ready.register(process.stdout, select.POLLIN)
    while len(said) < _VERDICT:
        if not ready.poll(max(0, deadline - time.monotonic()) * 1000):
            return Verdict(id=program.id, outcome="timeout", detail="neither program nor test ended in time")
        part = os.read(process.stdout.fileno(), _VERDICT)
        if not part:
            break
        said += part
    return _read(program.id, said, process, limits)


def _read(name: str, said: bytes, process: subprocess.Popen[bytes], limits: Limits) -> Verdict:
    try:
        verdict = json.loads(said)
        told = {"outcome": verdict["outcome"], "stopped": verdict["stopped"], "detail": _printable(verdict["detail"])}
        layers = {word: _printable(how) for word, how in verdict["layers"].items()}
        if told["outcome"] != "gone":
            return Verdict(id=name, layers=layers, **told)
        who = "program"
    except Exception:  # whatever was sent
        who, layers = "test", {}
    outcome, detail = _ending(who, process, limits)
    return Verdict(id=name, outcome=outcome, detail=detail, layers=layers)


def _ending(who: str, process: subprocess.Popen[bytes], limits: Limits) -> tuple[Outcome, str]:
    """What became of a jail whose test said nothing of use."""
    try:
        status = process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        return "killed", "the sandbox did not end"
    excesses = {
        watching.THREADS: f"the program started more than {limits.threads} threads",
        watching.SIZE: f"the program wrote more than {limits.scratch_mib} MiB",
        watching.FILES: f"the program made more than {config.ENTRIES:,} files",
    }
    if status in excesses:
        return "killed", excesses[status]
    if status in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout", f"the {who} used up its processor time"
    if status:
        number = abs(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {status}"
        return "killed", f"the {who} died of {name}"
    return "error", f"the {who} ended before it answered"


def _printable(text: object) -> str:
    """A text that terminals, files and tables take: what they do not is written out."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in str(text)
    )


def _message(content: dict[str, Any]) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "big") + text


@contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A jail that has a session of its own; everything in it is killed at the end."""
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(
            [config.interpreter(), "-I", "-S", "-B", str(_ENTRY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise StageError(
            f"the sandbox cannot start {config.interpreter()}: {error}",
            remedy="allow more processes and open files (ulimit -u, ulimit -n), or run fewer programs at a time",
        ) from error
    try:
        yield process
    finally:
        process.terminate()
        # It has the time to end its processes and wait for them, so that none is left when its verdict is told.
        if process.returncode is None:
            descriptor = os.pidfd_open(process.pid)
            select.select([descriptor], [], [], _GRACE)
            os.close(descriptor)
        # Not yet waited for, the leader keeps the group's number from being given to another.
        _without(ProcessLookupError, lambda: os.killpg(process.pid, signal.SIGKILL))
        process.wait()
        for stream in (process.stdin, process.stdout):
            _without(OSError, stream.close if stream else lambda: None)


def _without(error: type[Exception], action: Callable[[], None]) -> None:
    with suppress(error):
        action()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that only the jail may enter. The folder around it is for its owner alone, but for passing through."""
    with ExitStack() as stack:
        try:
            outer = stack.enter_context(private.temporary_folder(PREFIX))
            folder = outer / "scratch"
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0:
                outer.chmod(0o711)  # the jail's users are others
        except OSError as error:
            raise StageError(
                f"the sandbox cannot make a scratch folder: {error}",
                remedy="make room there, or set TMPDIR to another folder of your own",
            ) from error
        yield folder
