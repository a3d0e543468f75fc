"""Runs that are killed, cancelled, damaged or orphaned, and what becomes of them."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from artifacts.errors import StageError
from artifacts.progress import Listener, Tick
from artifacts.schema import Checkpoint, TokenizedDataset
from tasks.training.checkpoints import Checkpoints
from tasks.training.messages import RESULT
from tests.chaos.damage import damage
from tests.tasks.training import jobs


def at_step(step: int, act: Listener) -> Listener:
    """Acts when a step of the training is reported."""
    return lambda tick: act(tick) if tick.title == "training" and tick.completed == step else None


def send(number: signal.Signals) -> Listener:
    return lambda tick: [worker.send_signal(number) for worker in jobs.workers()] and None


def cancel(tick: Tick) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory: pytest.TempPathFactory, tokens: TokenizedDataset) -> Path:
    """The work directory of a run that was cancelled in the middle."""
    workdir = tmp_path_factory.mktemp("cancelled")
    with pytest.raises(KeyboardInterrupt):
        jobs.run(workdir, tokens, listener=at_step(5, cancel))
    assert not jobs.workers()
    return workdir


def test_killed_at_any_step_and_resumed_gives_the_same_bits(
    workdir: Path, tokens: TokenizedDataset, finished: Checkpoint
) -> None:
    step = random.SystemRandom().randint(3, 7)
    with pytest.raises(StageError, match="SIGKILL"):
        jobs.run(workdir, tokens, listener=at_step(step, send(signal.SIGKILL)))
    assert 2 <= jobs.train_here(workdir, tokens).resumed_from <= step + 1, step
    assert jobs.digest(workdir) == jobs.digest(finished.path), step
    assert jobs.metrics(workdir)["step"] == list(range(1, 9))
    assert jobs.metrics(workdir)["loss"] == jobs.metrics(finished.path)["loss"]


def test_cancelled_run_leaves_a_checkpoint_of_its_last_step(cancelled: Path) -> None:
    newest = max(path.name for path in (cancelled / "checkpoints").iterdir())
    assert newest in ("step-00000005", "step-00000006", "step-00000007")
    assert not (cancelled / RESULT / "adapter").exists()


def test_cancelled_and_resumed_gives_the_same_bits(
    cancelled: Path, workdir: Path, tokens: TokenizedDataset, finished: Checkpoint
) -> None:
    shutil.copytree(cancelled, workdir)
    jobs.train_here(workdir, tokens)
    assert jobs.digest(workdir) == jobs.digest(finished.path)


def test_damaged_checkpoint_steps_back(
    cancelled: Path,
    workdir: Path,
    tokens: TokenizedDataset,
    finished: Checkpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(cancelled, workdir)
    older, newest = sorted(path for path in (workdir / "checkpoints").glob("step-*"))
    torn = (newest / "optimizer.pt").read_bytes()
    (newest / "optimizer.pt").write_bytes(torn[: len(torn) // 2])
    assert jobs.train_here(workdir, tokens).resumed_from == int(older.name[-8:])
    assert any(record.levelno == logging.WARNING and "optimizer.pt" in record.getMessage() for record in caplog.records)
    assert jobs.digest(workdir) == jobs.digest(finished.path)


def test_killed_after_the_last_step_trains_no_step_again(
    workdir: Path, tokens: TokenizedDataset, finished: Checkpoint
) -> None:
    shutil.copytree(finished.path.parent, workdir)  # as it lies there until it is published
    assert jobs.train_here(workdir, tokens).resumed_from == 8
    assert jobs.digest(workdir) == jobs.digest(finished.path)
    assert jobs.metrics(workdir) == jobs.metrics(finished.path)


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_a_torn_checkpoint_is_never_used_whichever_file_it_is(cancelled: Path, tmp_path: Path, harm: str) -> None:
    newest = max((cancelled / "checkpoints").glob("step-*"))
    names = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert len(names) > 5
    for number, name in enumerate(names):
        torn = tmp_path / str(number)
        shutil.copytree(cancelled / "checkpoints", torn)
        damage(torn / newest.name / name, harm, random.Random(number))
        found = Checkpoints(torn).newest()
        assert found is not None and found < torn / newest.name, f"{harm} {name}"
        assert not (torn / newest.name).exists()


def test_no_orphan_survives_its_parent(tmp_path: Path, tokens: TokenizedDataset) -> None:
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from artifacts.schema import TokenizedDataset
        from tests.tasks.training import jobs
        tokens = TokenizedDataset.model_validate_json({tokens.model_dump_json()!r})
        tokens = tokens.model_copy(update={{"path": Path({str(tokens.path)!r})}})
        config = jobs.CONFIG.model_copy(update={{"max_steps": 5000, "save_steps": 1000}})
        jobs.run(Path({str(tmp_path / "work")!r}), tokens, config, lambda tick: print(tick.completed, flush=True))
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        next(line for line in parent.stdout if line.startswith("2"))
        (worker,) = jobs.workers(parent.pid)
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert not alive
    assert list((tmp_path / "work" / "checkpoints").glob("step-*/checkpoint.json"))


def test_deaf_worker_is_killed_after_its_grace(workdir: Path, tokens: TokenizedDataset) -> None:
    """A stopped process does not answer SIGTERM; like one that hangs in a driver."""
    config = jobs.CONFIG.model_copy(update={"grace_seconds": 0.5})
    freeze = send(signal.SIGSTOP)

    def freeze_and_cancel(tick: Tick) -> None:
        freeze(tick)
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        jobs.run(workdir, tokens, config, freeze_and_cancel)
    assert not jobs.workers() and time.monotonic() - started < 20


def test_crash_is_told_with_the_end_of_its_output(workdir: Path, tokens: TokenizedDataset) -> None:
    with pytest.raises(StageError, match="SIGSEGV") as caught:
        jobs.run(workdir, tokens, listener=send(signal.SIGSEGV))
    assert "Segmentation fault" in str(caught.value)
