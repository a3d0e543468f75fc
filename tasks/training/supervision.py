"""Running the training in a process of its own, so that it can be killed, and cannot take its parent with it.

The process lives in a session of its own: signals of a terminal or of a process group do not reach it by accident.
Whatever ends the parent is forwarded: an exception (cancelling a Prefect run raises one, Ctrl-C too) as SIGTERM to
the process group, answered with a checkpoint, then SIGKILL after a time of grace; the parent's death by the kernel,
as SIGTERM too (the child asks for it, see `worker`). No orphan survives.

A plan with several processes starts `launcher` in the one process's place, which starts and ends them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from artifacts.errors import StageError
from artifacts.installation import safe
from artifacts.progress import Progress
from tasks.running import gpu_lock
from tasks.training.messages import Spec, error_of

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
TAIL_LINES = 20
LAUNCHER_SECONDS = 10
"""What a launcher may take beyond the grace that it gives to its processes."""


def run_worker(spec: Spec, workdir: Path, progress: Progress) -> dict[str, Any]:
    """Train in a child process. Returns the fields of the handle.

    Raises:
        InputError: the child found the configuration or the data unusable.
        StageError: training failed, or the process ended without a word.
    """
    specification = workdir / "spec.json"
    specification.write_text(spec.model_dump_json(indent=1))
    output = workdir / "worker.log"
    reader, writer = os.pipe()
    try:
        module = "tasks.training.worker" if spec.plan.processes == 1 else "tasks.training.launcher"
        process = _start([module, str(specification), str(writer)], output, _environment(spec))
    finally:
        os.close(writer)
    try:
        words = _listen(reader, progress)
        process.wait()
    except BaseException:
        _stop(process, spec.config.grace_seconds + (LAUNCHER_SECONDS if spec.plan.processes > 1 else 0))
        raise
    finally:
        os.close(reader)
    return _outcome(words, process.returncode, output)


@dataclass
class _Words:
    """What was said at the end."""

    last: dict[str, Any] = field(default_factory=dict)
    """The first failure, else the last word; `{}` if there was none."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Exit statuses, by rank, of those of several processes that failed."""

    @property
    def killed(self) -> tuple[str, int] | None:
        """The process that a signal ended, which the others' failures come from, and the signal."""
        dead = ((rank, -status) for rank, status in self.statuses.items() if status < 0)
        return next((one for one in dead if one[1] != signal.SIGTERM), None)  # that one is the launcher's


def _environment(spec: Spec) -> dict[str, str]:
    processes = spec.plan.processes
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(processes)))).split(",")
    variables = {
        # By default a thread that waits for others spins, which on a busy machine takes the time that they need:
        # measured three times slower beside other work.
        "GOMP_SPINCOUNT": "5000",
        # Blocks of changing size leave holes: 1.1 GiB beside a 7B's 10 without this (fp16), 0.5 with it (int8).
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        # Several processes talk to each other within this machine alone.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        **os.environ,
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(spec.config.cpu_threads),
        # TRL refuses several visible ones; of several processes each gets one of these
        "CUDA_VISIBLE_DEVICES": ",".join(visible[:processes]) if spec.plan.device == "cuda" else "",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # all is here already; PEFT would ask the hub about the base model at every save
        "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL reports every trainer that is built
    }
    return safe(variables)


def _start(arguments: list[str], output: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`arguments`: a module, the specification, and the file descriptor that it inherits."""
    with output.open("wb") as log_file:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=(int(arguments[-1]), *gpu_lock.held()),
            env=environment,
            start_new_session=True,
        )


def _listen(reader: int, progress: Progress) -> _Words:
    """Pass on what the child tells until it closes the pipe."""
    words = _Words()
    for line in _lines(reader):
        message = json.loads(line)
        match message["kind"]:
            case "phase":
                progress.begin(message["title"], message["total"], message["unit"])
            case "step":
                progress.update(message["step"], **message["details"])
            case "log":
                logging.getLogger(message["logger"]).log(message["level"], "%s", message["message"])
            case "ranks":
                words.statuses = message["statuses"]
            case _ if words.last.get("kind") != "failure":
                words.last = message
    return words


def _lines(reader: int) -> Iterator[bytes]:
    """Lines from a pipe. Never blocks for long: an exception sent to this thread must find a place to be raised."""
    pending = b""
    while True:
        ready, _, _ = select.select([reader], [], [], POLL_SECONDS)
        if not ready:
            continue
        received = os.read(reader, 1 << 16)
        if not received:
            return
        *complete, pending = (pending + received).split(b"\n")
        yield from complete


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """End the child: it gets time to write a checkpoint. Further interruptions cut that time short."""
    if process.poll() is not None:
        return
    log.info("asking the training process to write a checkpoint and stop (up to %.0f s)", grace)
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(grace)
    except subprocess.TimeoutExpired:
        log.warning("the training process did not stop within %.0f s and is killed", grace)
    finally:
        if process.poll() is None:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The child, and the processes that a launcher started in sessions of their own."""
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(started)


def _outcome(words: _Words, status: int, output: Path) -> dict[str, Any]:
    last = words.last
    if last.get("kind") == "result" and status == 0:
        handle: dict[str, Any] = last["handle"]
        return handle
    which = "the training process"
    if words.killed:
        which, status = f"{which} of rank {words.killed[0]}", -words.killed[1]
    elif last.get("kind") == "failure":
        raise error_of(last, _tail(output))
    resume = "checkpoints are kept: run again to continue from the last one"
    if last.get("kind") == "stopped" and not words.killed:
        raise StageError(f"the training process was told to stop (SIGTERM) at step {last['step']}", remedy=resume)
    if status == -signal.SIGKILL:
        raise StageError(
            f"{which} was killed (SIGKILL); mostly the kernel does that when memory runs out",
            field="training",
            remedy=f"free memory or lower training.micro_batch; {resume}",
        )
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    raise StageError(f"{which} ended {how}\n{_tail(output)}", remedy=resume)


def _tail(output: Path) -> str:
    lines = output.read_text(errors="replace").splitlines()
    # After a crash Python writes its stack, innermost frame first: there the beginning tells, not the end.
    fatal = [number for number, line in enumerate(lines) if line.startswith("Fatal Python error")]
    lines = lines[fatal[-1] :][:TAIL_LINES] if fatal else lines[-TAIL_LINES:]
    return "\n".join(["the end of its output:", *(f"  {line}" for line in lines)]) if lines else "it wrote nothing"
