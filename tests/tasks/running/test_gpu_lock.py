"""One run at a time on a card: real processes on a GPU that stands in for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.configuration import Config
from artifacts.errors import InputError, StageError
from artifacts.progress import Progress
from artifacts.schema import Handle
from artifacts.store import Store
from tasks.running.gpu_lock import GpuLock, gpu_name, held
from tasks.running.run import Run
from tasks.running.stage import Stage


class Note(Handle):
    """The least that a stage can give."""

    @property
    def summary(self) -> str:
        return "done"


HOLDER = """
import logging, subprocess, sys
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
from tasks.running.gpu_lock import GpuLock, held
GpuLock("stand-in").hold()
child = subprocess.Popen(["sleep", "600"], pass_fds=held()) if "child" in sys.argv else None
print("holds", child.pid if child else "", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODETUNE_LOCKS", str(tmp_path))


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    with start() as process:
        assert process.stdout is not None and process.stdout.readline().startswith("holds")
        yield process
        process.kill()


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", HOLDER, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_run_waits_and_a_killed_holder_frees_the_card(holder: subprocess.Popen[str]) -> None:
    with start() as second:
        assert second.stdout is not None
        assert f"held by process {holder.pid} " in second.stdout.readline()
        holder.kill()
        assert second.stdout.readline().startswith("holds")
        second.kill()


def test_a_child_that_outlives_a_killed_run_keeps_the_card() -> None:
    with start("child") as run:
        assert run.stdout is not None
        child = int(run.stdout.readline().split()[1])
        run.kill()
    with start() as second:
        assert second.stdout is not None and "waiting" in second.stdout.readline()
        os.kill(child, signal.SIGKILL)
        assert second.stdout.readline().startswith("holds")
        second.kill()


def test_a_holder_that_does_not_end_is_named_and_not_waited_for_for_ever(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.running.gpu_lock.AGES", 0.2)
    with pytest.raises(StageError, match=f"process {holder.pid} .*-c import"):
        GpuLock("stand-in").hold()


@pytest.mark.parametrize("harm", ["open to all", "a link"])
def test_no_lock_is_made_where_another_user_decides_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    if harm == "a link":
        (folder / "codetune-stand-in.lock").symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o1777)
    monkeypatch.setenv("CODETUNE_LOCKS", str(folder))
    with pytest.raises(InputError, match=str(folder)) as refused:
        GpuLock("stand-in").hold()
    assert refused.value.field == "CODETUNE_LOCKS"
    assert not (tmp_path / "elsewhere").exists()


def test_left_to_itself_the_lock_is_in_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODETUNE_LOCKS")
    monkeypatch.setenv("HOME", str(tmp_path))
    card = GpuLock("stand-in")
    card.hold()
    (file,) = tmp_path.rglob("*.lock")
    assert (file.parent.stat().st_mode & 0o007, file.stat().st_mode & 0o777) == (0, 0o600)
    card.release()


def test_a_released_card_can_be_had_again() -> None:
    first, second = GpuLock("stand-in"), GpuLock("stand-in")
    first.hold()
    assert len(held()) == 1
    first.release()
    second.hold()
    second.release()
    assert not held()


def test_a_run_holds_its_card_from_the_first_stage_that_needs_it(prefect_server: None, store: Store) -> None:
    held_by: dict[str, int] = {}
    with Run(store, gpu=GpuLock("stand-in")) as run:
        for needs_gpu in (False, True):

            def look(config: Config, *, workdir: Path, progress: Progress, needs_gpu: bool = needs_gpu) -> Note:
                held_by[str(needs_gpu)] = len(held())
                (workdir / "note.txt").write_text("done")
                return Note(path=workdir)

            name = f"needs-GPU-{needs_gpu}".lower()
            run.stage(Stage(name, 1, look, Note, lambda note: [], needs_gpu=needs_gpu), Config())
    assert (held_by, held()) == ({"False": 0, "True": 1}, ())


def test_a_machine_without_a_card_has_nothing_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODETUNE_GPU", "stand-in")
    assert gpu_name() == "stand-in"
    GpuLock(None).hold()
    assert not held()
