"""A small machine to break: a Prefect server, runs of a very small recipe as real processes, and what they leave.

Every process that is started here carries a marker in its environment, which its children inherit: that is how a
process that stays behind is found, whoever its parent is.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx
import psutil
import yaml
from filelock import FileLock, Timeout

from artifacts import digest
from artifacts.store import MANIFEST
from flows import cli, stages
from tests import records, small_model
from tests.waiting import import_path

PROJECT = Path(__file__).parents[2]
MARKER = "CODETUNE_CHAOS"
_NOT_HERE = {"retention", "retention-tokens", "execution", *stages.SHIPPED}
STAGES = tuple(stage for stage in stages.STAGES if stage not in _NOT_HERE)
"""Of the small recipe, in order."""
STEPS, SAVE_STEPS = 8, 2
WAIT_SECONDS = 240.0
"""Seconds until something that should happen counts as not happening; a busy machine is slow."""
RECIPE: dict[str, Any] = {
    "recipe": "demo",
    "sampling": {"files": 12, "held_out": 0.3},
    "tokenization": {"max_length": 64},
    "training": {"max_steps": STEPS, "warmup_steps": 1, "save_steps": SAVE_STEPS, "cpu_threads": 1},
    "exporting": {"forms": []},
    "retention": None,
    "prompts": {
        "max_chunks": 4,
        "line_prompts": 2,
        "fim_prompts": 2,
        "block_prompts": 0,
        "prompt_tokens": 32,
        "max_new_tokens": 4,
    },
    "evaluation": {"resamples": 2000},
}


def wait_until(what: str, done: Callable[[], Any], patience: float = WAIT_SECONDS) -> Any:
    """The first true value of `done`; raises AssertionError when there is none in time."""
    deadline = time.monotonic() + patience
    while not (value := done()):
        assert time.monotonic() < deadline, f"in {patience:.0f} s: {what}"
        time.sleep(0.1)
    return value


def processes(marker: str) -> list[psutil.Process]:
    """The living processes that carry a marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@dataclass
class Results:
    """A store as it lies on the disk: what is finished, what is in the making, what is held."""

    root: Path

    def finished(self) -> dict[str, tuple[int, int]]:
        """Finished stages; inode and time of the manifest, which differ when a stage was built again."""
        found = {}
        for stage in STAGES:
            for manifest in self.root.glob(f"{stage}/*/{MANIFEST}"):
                about = manifest.stat()
                found[stage] = (about.st_ino, about.st_mtime_ns)
        return found

    def at_work(self, stage: str) -> bool:
        """Whether a stage has begun, or is done."""
        return any(self.root.glob(f".work/{stage}/*")) or any(self.root.glob(f"{stage}/*/{MANIFEST}"))

    def last_checkpoint(self) -> int | None:
        """The step of the newest sealed checkpoint of an unfinished training."""
        found = self.root.glob(".work/training/*/checkpoints/step-*/checkpoint.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in found), default=None)

    def handle(self, stage: str) -> dict[str, Any]:
        """What the manifest says of a finished stage."""
        (manifest,) = self.root.glob(f"{stage}/*/{MANIFEST}")
        handle: dict[str, Any] = json.loads(manifest.read_text())["handle"]
        return handle

    def adapter(self) -> str:
        """sha256 of the exported adapter."""
        (weights,) = self.root.glob("exporting/*/adapter/adapter_model.safetensors")
        return digest.of_file(weights)

    def held_locks(self) -> list[str]:
        """Locks that somebody holds."""
        held = []
        for path in (self.root / ".locks").glob("*.lock"):
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                held.append(path.name)
        return held

    def unfinished(self) -> list[str]:
        """Work directories that nobody cleared away."""
        return [path.relative_to(self.root).as_posix() for path in self.root.glob(".work/*/*")]


class Copy:
    """A copy of a process that has imported what runs need (`warm`): what `subprocess.Popen` is to a program."""

    def __init__(self, arguments: list[str], variables: Mapping[str, str], said: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(arguments, dict(variables), said))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(arguments: list[str], variables: dict[str, str], said: Path) -> None:
    """`codetune` with these arguments, in the copy."""
    for path, descriptor in ((said.with_suffix(".out"), 1), (said, 2)):
        with path.open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.update(variables)
    try:
        status = cli.guarded(arguments)
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()  # a copy would leave these out
    sys.exit(status)


@dataclass
class Attempt:
    """One `codetune run` as a process."""

    process: subprocess.Popen[bytes] | Copy
    marker: str
    said: Path
    """Its standard error; its output is beside it, in a file whose name ends in `.out`."""

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def training(self) -> psutil.Process | None:
        """The training process, while there is one."""
        for process in processes(self.marker):
            try:
                if "tasks.training.worker" in process.cmdline():
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def end(self, patience: float = WAIT_SECONDS) -> int:
        """The exit status, once nothing of the run is left."""
        status = self.process.wait(patience)
        wait_until("every process of the run is gone", lambda: not processes(self.marker))
        return status

    def states(self) -> dict[str, str]:
        """The states of the stages of a completed run."""
        assert self.end() == 0, self.words()
        stages = json.loads(self.said.with_suffix(".out").read_text().splitlines()[-1])["stages"]
        return {name: stage["state"] for name, stage in stages.items()}

    def words(self) -> str:
        """What it said on standard error."""
        return self.said.read_text(errors="replace")[-3000:]


class PrefectServer:
    """A server of the test's own, always at the same port and with the same database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.marker = folder, free_port(), f"server-{uuid4()}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.serve", "server", "start", "--port", str(self.port)],
                cwd=self.folder,
                env={
                    **environment(self.folder),
                    MARKER: self.marker,
                    "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until("the server answers", self._answers)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        wait_until("every process of the server is gone", lambda: not processes(self.marker))

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "server.log").read_text()[
            -2000:
        ]
        try:
            return httpx.get(f"{self.address}/api/health", timeout=2, verify=False).status_code == 200
        except httpx.HTTPError:
            return False


@dataclass
class Machine:
    """A server, some code to learn from, and runs of the small recipe on them."""

    folder: Path
    server: PrefectServer
    recipe: Path
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage of the undisturbed run took."""
    warm: bool = False
    """Runs are copies of a process that has the imports behind it: see `warm`."""
    pristine: Path | None = None
    """The store of the undisturbed run."""

    def store(self, *, without: int | None = None) -> Results:
        """A new store: empty, or with `without=n` the undisturbed run's less the stages from the n-th on."""
        root = self.folder / f"store-{uuid4().hex[:8]}"
        if without is not None:
            assert self.pristine is not None
            later = {*STAGES[without:]}
            later |= {"answers"} if "generation" in later else set()  # what it puts its artifact together from
            shutil.copytree(
                self.pristine,
                root,
                ignore=lambda folder, names: later & {*names} if Path(folder) == self.pristine else (),
            )
        return Results(root)

    def run(
        self, store: Results, *changes: str, variables: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> Attempt:
        """Start `codetune run` on the small recipe. `prefix`: a command that runs it."""
        marker = str(uuid4())
        said = self.folder / f"said-{marker}.txt"
        sets = [part for change in changes for part in ("--set", change)]
        arguments = ["run", str(self.recipe), *sets, "--store", str(store.root), "--json"]
        if self.warm and not prefix:
            own = {MARKER: marker, **(variables or {})}
            return Attempt(Copy(arguments, own, said), marker, said)
        command = [*prefix, sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        with said.open("w") as errors, said.with_suffix(".out").open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env={**environment(self.folder), **self.api, MARKER: marker, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        return Attempt(process, marker, said)

    @property
    def api(self) -> dict[str, str]:
        return {"PREFECT_API_URL": f"{self.server.address}/api"}

    def warm_up(self) -> None:
        """Start the process that runs are copies of from now on. One for all machines: there can be no second one with
        another server."""
        multiprocessing.set_forkserver_preload(["tests.chaos.warm"])
        with patch.dict(os.environ, {**environment(self.folder), **self.api}, clear=True):
            forkserver.ensure_running()
        self.warm = True

    def rehearse(self) -> None:
        """The undisturbed run that all others are compared with."""
        store = self.store()
        attempt = self.run(store)
        assert set(attempt.states().values()) == {"ran"}, attempt.words()
        self.pristine = store.root
        for stage in STAGES:
            (manifest,) = store.root.glob(f"{stage}/*/{MANIFEST}")
            self.seconds[stage] = json.loads(manifest.read_text())["provenance"]["seconds"]


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A machine in a folder; nothing of it is left at the end."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in ("json", "html", "wsgiref"):
        shutil.copytree(library / name, folder / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = {"kind": "local", "paths": [str(folder / "code")], "license": "PSF-2.0"}
    model, recipe = folder / "model", folder / "tiny.yaml"
    model.mkdir()
    small_model.write(model)
    own = {"model": {"name": str(model)}, "sampling": {**RECIPE["sampling"], "source": source}}
    recipe.write_text(yaml.safe_dump(RECIPE | own))
    records.copy_to(folder / "prefect.db")
    server = PrefectServer(folder)
    server.start()
    try:
        made = Machine(folder, server, recipe)
        made.rehearse()
        yield made
    finally:
        server.kill()


def environment(folder: Path) -> dict[str, str]:
    """What every process of the machine gets: the project's settings, and nothing of the person's own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "CODETUNE_", "HF_"))
    }
    return {
        **kept,
        "PYTHONPATH": import_path(PROJECT),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "HF_HOME": str(folder / "hub"),
    }


def stop(process: psutil.Process | subprocess.Popen[Any] | None, number: signal.Signals) -> bool:
    """Send a signal; False when there is nobody to send it to."""
    try:
        if process is None:
            return False
        process.send_signal(number)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
