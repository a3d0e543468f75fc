"""SIGKILL at random moments: a run is killed again and again, and the last attempt must complete."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.machine import SAVE_STEPS, STAGES, STEPS, Attempt, Machine, Results, processes, stop, wait_until
from tests.chaos.results import say

Victim = Callable[[Machine, Attempt], bool]
"""Kills something; False when it was not there."""


def training(_machine: Machine, attempt: Attempt) -> bool:
    """The training process."""
    return stop(attempt.training(), signal.SIGKILL)


def flow(_machine: Machine, attempt: Attempt) -> bool:
    """The flow process: here the command line's."""
    return not attempt.over and stop(attempt.process, signal.SIGKILL)


def server(machine: Machine, attempt: Attempt) -> bool:
    """The server, which is started again at once."""
    if attempt.over:
        return False
    machine.server.kill()
    machine.server.start()
    return True


@dataclass
class Chain:
    """Attempts at one run, on one store."""

    machine: Machine
    store: Results
    random: random.Random
    kills: int = 0

    def strike(self, victim: Victim) -> bool:
        """One attempt, in which `victim` is killed at a random moment of a stage that is still to be done. False when
        the moment did not come: the run was done before."""
        before, checkpoint = self.store.finished(), self.store.last_checkpoint()
        attempt = self.machine.run(self.store)
        left = [stage for stage in STAGES if stage not in before]
        stage = "training" if victim is training else self.random.choice((left[0], *left[:2]))
        self._wait_for_the_moment(attempt, stage, victim)
        struck = victim(self.machine, attempt)
        say(f"  {victim.__name__} killed in {stage}" if struck else f"  done before a kill in {stage}")
        attempt.end()
        self.kills += struck
        self._judge(before, checkpoint, attempt)
        return struck

    def finish(self) -> None:
        """An undisturbed attempt; judges the whole chain."""
        before, checkpoint = self.store.finished(), self.store.last_checkpoint()
        attempt = self.machine.run(self.store)
        states = attempt.states()
        for stage in STAGES:
            done = {"cached"} if stage in before else {"ran", "resumed"}
            assert states[stage] in done, f"{stage} is {states[stage]}, was finished: {stage in before}"
        self._judge(before, checkpoint, attempt)
        assert not self.store.unfinished(), self.store.unfinished()
        judge_results(self.machine, self.store)

    def _wait_for_the_moment(self, attempt: Attempt, stage: str, victim: Victim) -> None:
        """Until the stage is at work, or has written a certain checkpoint; then a random time, up to what it takes."""
        step = self.random.choice((0, 0, *range(SAVE_STEPS, STEPS + 1, SAVE_STEPS))) if stage == "training" else 0

        def begun() -> bool:
            if attempt.over or stage in self.store.finished():
                return True
            if step:
                return (self.store.last_checkpoint() or 0) >= step
            return attempt.training() is not None if victim is training else self.store.at_work(stage)

        wait_until(f"{stage} is at step {step}", begun)
        moment = time.monotonic() + self.random.uniform(0, 0.5 if step else 1.2 * self.machine.seconds[stage] + 0.3)
        while time.monotonic() < moment and not attempt.over:
            if stage in self.store.finished():  # faster than the undisturbed run
                time.sleep(self.random.uniform(0, 0.3))
                break
            time.sleep(0.02)

    def _judge(self, before: dict[str, tuple[int, int]], checkpoint: int | None, attempt: Attempt) -> None:
        """What must hold after every attempt, killed or not."""
        now = self.store.finished()
        again = [stage for stage in before if now.get(stage) != before[stage]]
        assert not again, f"finished stages were built again: {again}\n{attempt.words()}"
        assert not self.store.held_locks(), self.store.held_locks()
        assert not processes(attempt.marker)
        if "training" in now and "training" not in before:
            resumed = self.store.handle("training")["resumed_from"]
            assert resumed == checkpoint, f"training continued at {resumed}, the newest checkpoint was {checkpoint}"
        elif "training" not in now:
            newest = self.store.last_checkpoint()
            assert (newest or 0) >= (checkpoint or 0), f"checkpoint {checkpoint} was lost, now {newest}"


def judge_results(machine: Machine, store: Results) -> None:
    """Bit for bit what the undisturbed run gave; reports tell times."""
    assert machine.pristine is not None
    undisturbed = Results(machine.pristine)
    assert store.adapter() == undisturbed.adapter()
    for stage in STAGES[:-1]:
        assert store.handle(stage)["fingerprint"] == undisturbed.handle(stage)["fingerprint"], stage


def chain(machine: Machine, seed: random.Random, victims: list[Victim]) -> int:
    """A run that is killed once per victim before it may complete. Returns how many kills met their victim."""
    attempts = Chain(machine, machine.store(), seed)
    for victim in victims:
        if "reporting" in attempts.store.finished():
            break
        attempts.strike(victim)
    attempts.finish()
    return attempts.kills
