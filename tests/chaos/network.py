"""Networks that fail: the Prefect server is away for half a minute, the hub does not deliver."""

from __future__ import annotations

import random
import shutil
import signal
import time

import psutil

from tests.chaos.kills import judge_results
from tests.chaos.machine import STAGES, Machine, stop, wait_until
from tests.hub import Hub
from tests.small_model import BASE_MODEL

AWAY = 30.0
"""Seconds."""


def server_away(machine: Machine, chance: random.Random, *, frozen: bool, seconds: float = AWAY) -> None:
    """The server is gone (or stops answering) in the middle of a run, and comes back: the run goes on."""
    results = machine.store(without=chance.randrange(5))
    left = [stage for stage in STAGES if stage not in results.finished()]
    attempt = machine.run(results)
    stage = chance.choice(left[:3])
    wait_until(f"{stage} begins", lambda: attempt.over or results.at_work(stage))
    time.sleep(chance.uniform(0, machine.seconds[stage]))
    assert machine.server.process is not None
    if frozen:
        everyone = psutil.Process(machine.server.process.pid)
        stop(everyone, signal.SIGSTOP)
        time.sleep(seconds)
        stop(everyone, signal.SIGCONT)
    else:
        machine.server.kill()
        time.sleep(seconds)
        machine.server.start()
    states = attempt.states()
    assert all(states[stage] == "ran" for stage in left), states
    judge_results(machine, results)
    shutil.rmtree(results.root)


def hub_fails(machine: Machine, faults: dict[str, dict[str, object]]) -> list[str]:
    """A run whose model comes from a hub that refuses, breaks off, dawdles and lies about lengths; then it completes.
    Returns the faults that happened."""
    results = machine.store()
    with Hub(models={"someone/tiny": BASE_MODEL}) as hub:
        planned = {name: hub.fail(**fault) for name, fault in faults.items()}  # type: ignore[arg-type]
        attempt = machine.run(
            results,
            "model.name=someone/tiny",
            variables={"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(machine.folder / f"hub-{results.root.name}")},
        )
        assert set(attempt.states().values()) == {"ran"}, attempt.words()
    shutil.rmtree(results.root)
    return [name for name, fault in planned.items() if fault.happened]


HUB_FAULTS: dict[str, dict[str, object]] = {
    "hub: answers 500": {"kind": 500, "match": "*/config.json", "times": 2},
    "hub: refuses the connection": {"kind": "refuse", "match": "/api/*", "times": 2},
    "hub: cut in the middle": {"kind": "break", "match": "*/model.safetensors", "times": 2, "after": 1_000_000},
    "hub: slow": {"kind": "slow", "match": "*/tokenizer.json", "times": 1, "method": "GET"},
    "hub: wrong length": {"kind": "long", "match": "*/tokenizer_config.json", "times": 1, "method": "GET"},
}
