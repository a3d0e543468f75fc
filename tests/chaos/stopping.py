"""Runs that are asked to stop: a checkpoint is written, the training process goes in time, a rerun continues."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests import records
from tests.chaos.kills import judge_results
from tests.chaos.machine import STAGES, Machine, Results, processes, stop, wait_until
from tests.chaos.workers import Office, Up, Worker, finish

GRACE = 60.0
"""Seconds, `training.grace_seconds`."""


def in_training(results: Results) -> bool:
    """Whether optimizer steps are being made."""
    return any(results.root.glob(".work/training/*/result/tensorboard/events*"))


def hold(training: Callable[[], Any], results: Results) -> Any:
    """The training process, stopped in its first steps, so that they are not over before the request arrives."""
    wait_until("training begins", lambda: in_training(results) or "training" in results.finished())
    process = training()
    assert process is not None and stop(process, signal.SIGSTOP)
    assert "training" not in results.finished()
    return process


def is_asked_to_end(pid: int) -> bool:
    """Whether SIGTERM waits for a stopped process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = (line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) & 1 << signal.SIGTERM - 1)


def terminated(machine: Machine) -> None:
    """SIGTERM to the flow process, as from a machine that shuts down."""
    results = machine.store(without=STAGES.index("training"))
    attempt = machine.run(results)
    training = hold(attempt.training, results)
    stop(attempt.process, signal.SIGTERM)
    stop(training, signal.SIGCONT)
    status = attempt.process.wait(GRACE)
    assert status != 0
    training.wait(GRACE)
    attempt.end()
    assert results.last_checkpoint(), "no checkpoint was written"
    continues(machine, results)


def continues(machine: Machine, results: Results) -> None:
    """A rerun takes up the training where it was stopped, and gives the same bits."""
    checkpoint = results.last_checkpoint()
    states = machine.run(results).states()
    assert states["training"] == "resumed", states
    assert results.handle("training")["resumed_from"] == checkpoint
    judge_results(machine, results)
    shutil.rmtree(results.root)


def cancelled(office: Office) -> None:
    """Cancelled from the dashboard: a rerun continues."""
    results = office.machine.store(without=STAGES.index("training"))
    worker = Worker.start(office.machine)
    try:
        run = office.submit(results)
        training = hold(worker.training, results)
        office.cancel(run)
        flow = worker.flow()
        wait_until("the training is asked to stop", lambda: is_asked_to_end(training.pid))
        stop(training, signal.SIGCONT)
        training.wait(GRACE)
        wait_until("the state says so", lambda: office.state(run).is_final())
        assert office.state(run).is_cancelled(), office.state(run)
        wait_until("the flow process is gone", lambda: flow is None or not flow.is_running())
    finally:
        worker.end()
    checkpoint = results.last_checkpoint()
    assert checkpoint, "no checkpoint was written"
    finish(office, results, {*results.finished()})
    assert results.handle("training")["resumed_from"] == checkpoint
    shutil.rmtree(results.root)


def ended_up(machine: Machine, number: signal.Signals) -> None:
    """A signal to `codetune up` during training (SIGINT is Ctrl-C); Retry in the next one continues the run."""
    results = machine.store(without=STAGES.index("training"))
    home = machine.folder / f"up-{uuid4().hex[:6]}"
    records.copy_to(home / "prefect.db")
    up = Up.start(machine, home)
    run = Office(machine, up).submit(results)
    training = hold(up.training, results)
    stop(up.process, number)
    wait_until("the training is asked to stop", lambda: is_asked_to_end(training.pid))
    stop(training, signal.SIGCONT)
    status = up.process.wait(2 * GRACE)
    if number == signal.SIGKILL:
        wait_until("all that it started is gone", lambda: not processes(up.marker))
    assert status in (0, -signal.SIGKILL) and not processes(up.marker), (up.words(), processes(up.marker))
    checkpoint = results.last_checkpoint()
    assert checkpoint, "no checkpoint was written"
    again = Up.start(machine, home)
    try:
        office = Office(machine, again)
        state = office.state(run)
        assert state.is_crashed() and "press Retry" in (state.message or ""), state
        office.retry(run)
        wait_until("the run is done", lambda: office.state(run).is_completed())
    finally:
        again.end(2 * GRACE)
    assert results.handle("training")["resumed_from"] == checkpoint
    assert not results.held_locks() and not results.unfinished()
    judge_results(machine, results)
    shutil.rmtree(results.root)
