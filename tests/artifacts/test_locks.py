"""Locks that real processes hold: who may hold them, and what is said of who does."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from artifacts import locks
from artifacts.errors import StageError
from artifacts.locks import Lock
from artifacts.registry import Registry
from artifacts.store import Store
from artifacts.verdicts import Candidate
from flows import cli

HOLDER = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, 2); print('held', flush=True); input()"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("artifacts.ledger.MOMENT", "artifacts.registry.MOMENT", "artifacts.locks.AGES"):
        monkeypatch.setattr(name, 0.3)


@pytest.fixture
def gate(store: Store) -> Iterator[subprocess.Popen[str]]:
    with holding(store.place / ".runs" / "gate.lock") as process:
        yield process
        process.kill()


def holding(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("command", [["runs"], ["prune", "--keep", "0"]])
def test_a_gate_that_is_held_ends_in_one_message_that_names_the_holder(
    store: Store, gate: subprocess.Popen[str], impatient: None, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert cli.guarded([*command, "--store", str(store.place)]) == 1
    said = capsys.readouterr().err
    assert f"process {gate.pid} of " in said and "import fcntl" in said and "Traceback" not in said
    assert time.monotonic() - began < 20


def test_the_lock_of_a_build_is_not_waited_for_for_ever(store: Store, impatient: None) -> None:
    with store.lock("training", "1" * 64), pytest.raises(StageError, match=f"process {os.getpid()} of "):
        store.lock("training", "1" * 64).__enter__()


def test_the_lock_of_the_registry_is_not_waited_for_for_ever(store: Store, impatient: None) -> None:
    store.registry.mkdir()
    with holding(store.registry / "lock") as process:
        with pytest.raises(StageError, match=f"process {process.pid} of "):
            Registry(store.registry).promote(cast(Candidate, None), "why not")
        process.kill()


def test_who_may_only_read_cannot_open_a_lock(store: Store, tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        entry = store.ledger.open("run", "demo")
        with store.lock("training", "1" * 64), store.ledger.gate():
            files = [*(store.place / ".runs").glob("*.lock"), *(store.place / ".locks").iterdir()]
            assert len(files) == 3 and {file.stat().st_mode & 0o777 for file in files} == {0o600}
        entry.end("completed")
    finally:
        os.umask(before)


def test_a_lock_file_of_old_that_others_may_open_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "lock").touch(0o644)
    assert Lock(tmp_path / "lock", "it").try_acquire()
    assert (tmp_path / "lock").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling link", "folder", "pipe"])
def test_what_is_no_file_of_ours_is_not_followed(tmp_path: Path, kind: str) -> None:
    place, other = tmp_path / "lock", tmp_path / "other"
    match kind:
        case "link":
            other.write_text("mine")
            place.symlink_to(other)
        case "hard link":
            other.write_text("mine")
            place.hardlink_to(other)
        case "dangling link":
            place.symlink_to(other)
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
    with pytest.raises(OSError):
        Lock(place, "it").try_acquire()
    assert (other.read_text() if kind in ("link", "hard link") else not other.exists()) in ("mine", True)


def test_a_lock_that_was_removed_while_it_was_waited_for_excludes_nobody(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock", "it"), Lock(tmp_path / "lock", "it")
    assert first.try_acquire()
    (tmp_path / "lock").unlink()
    assert second.try_acquire() and not Lock(tmp_path / "lock", "it").try_acquire()


def test_a_holder_on_another_machine_is_named_by_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_holding", lambda path: None)
    (tmp_path / "lock").write_text("4711 gpu-7\n")
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="process 4711 on gpu-7"):
            Lock(tmp_path / "lock", "it").acquire(0.1)
