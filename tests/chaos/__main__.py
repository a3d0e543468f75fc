"""The long form: `make chaos`, or `python -m tests.chaos --kills 100 --seed 1 --out bench/results/chaos.json`.

Prints what it does, writes the table after every trial, and ends with status 1 when something was not survived. Two
halves of it go on at the same time, each on a machine of its own: what is broken waits a lot.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import environment as settings
from tests.chaos import kills, network, stopping, store_faults, surroundings, workers
from tests.chaos.damage import HARMS
from tests.chaos.machine import STAGES, Machine, environment, machine
from tests.chaos.results import RESULTS, Table, renew_document, say

Group = Callable[[Machine, random.Random, Table, int], None]
VICTIMS: tuple[tuple[str, kills.Victim, float], ...] = (
    ("SIGKILL of the flow process", kills.flow, 0.52),
    ("SIGKILL of the training process", kills.training, 0.28),
    ("SIGKILL of the server", kills.server, 0.08),
)
"""With the share of all kills; the rest are the worker's."""
RANKS: dict[kills.Victim, float] = {kills.flow: 0.8, kills.training: 1.0, kills.server: 3.0}
"""Where a chain's kills come, more or less."""
WORKER = "SIGKILL of the worker"


def kill(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Chains of kills, mixed, until each victim had its share."""
    shares = {name: round(count * share) for name, _, share in VICTIMS}
    by_name = {name: victim for name, victim, _ in VICTIMS}
    while due := [name for name in by_name for _ in range(shares[name] - table.tried(name))]:
        # Training begins when all before it is done, and a run outlives its server: other kills first, or there is
        # little left to kill.
        names = sorted(chance.sample(due, min(9, len(due))), key=lambda name: chance.gauss(RANKS[by_name[name]], 0.7))
        struck: Counter[str] = Counter()
        attempts = kills.Chain(box, box.store(), chance)
        passed = True
        try:
            for name in names:
                if "reporting" in attempts.store.finished():
                    break
                if by_name[name] is kills.training and "training" in attempts.store.finished():
                    continue
                struck[name] += attempts.strike(by_name[name])
            attempts.finish()
        except Exception:
            traceback.print_exc()
            passed = False
            struck = struck or Counter(names[:1])  # what cannot even begin must not go on for ever
        for name, number in struck.items():
            table.add(name, number, number if passed else 0)


def kill_workers(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Chains of kills of the worker."""
    office = workers.Office.opened(box)
    while (left := count - sum(round(count * share) for *_, share in VICTIMS) - table.tried(WORKER)) > 0:
        try:
            number = workers.chain(office, chance, min(6, left))
            table.add(WORKER, number, number)
        except Exception:
            traceback.print_exc()
            table.add(WORKER, survived=0)
    for _ in range(6):
        with table.trial("SIGKILL of the worker when it takes a run"):
            workers.killed_early(office, chance)
    for _ in range(2):
        with table.trial("SIGKILL of the process of a worker's run"):
            workers.run_killed(office)
    for _ in range(3):
        with table.trial("SIGKILL of the server while a run is prepared"):
            workers.server_killed(office, chance)


def damage_store(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Everything that can be damaged in a store."""
    for harm in HARMS:
        fault = f"a file of an artifact {store_faults.IN_WORDS[harm]}: never served"
        with reported(table, fault):
            number = store_faults.every_file(box, harm, chance)
            table.add(fault, number, number)
    for number, stage in enumerate(STAGES):
        harm = HARMS[number % len(HARMS)]
        with table.trial("a damaged artifact: built again by the next run"):
            store_faults.rebuild(box, stage, harm, chance)
    with table.trial("a half-written work directory in every stage"):
        store_faults.half_written(box, chance)
    killed = store_faults.interrupted(box)
    for harm in HARMS:
        fault = f"a file of a checkpoint {store_faults.IN_WORDS[harm]}: stepped back"
        with reported(table, fault):
            number = store_faults.torn(box, killed, harm, chance)
            table.add(fault, number, number)
        with table.trial("a torn checkpoint: the next run continues from the one before"):
            store_faults.step_back(box, killed, harm, chance)


def change_surroundings(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Disks, permissions, clocks, others at once."""
    if surroundings.CAN_MOUNT:
        for stage in STAGES:
            with table.trial(f"disk full in {stage}"):
                surroundings.disk_full(box, stage, chance)
        for stage in chance.sample(STAGES, 2):
            with table.trial("read-only store"):
                surroundings.read_only(box, stage)
        for what in ("training", "exporting/*/manifest.json", "sampling/*/train.parquet", ".work", ".locks"):
            with table.trial("permission lost on a part of the store"):
                surroundings.permission_lost(box, what)
    with table.trial("clock set back"):
        surroundings.clock_set_back(box, chance)
    with table.trial("8 runs of the same recipe at once"):
        surroundings.at_once(box, 8)
    with table.trial("two recipes at once"):
        surroundings.two_recipes(box)


def cut_networks(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """The server away, the hub failing."""
    for _ in range(3):
        with table.trial("the server is down for 30 s in the middle of a run"):
            network.server_away(box, chance, frozen=False)
    with table.trial("the server does not answer for 30 s in the middle of a run"):
        network.server_away(box, chance, frozen=True)
    happened: list[str] = []
    with reported(table, *network.HUB_FAULTS):
        happened = network.hub_fails(box, network.HUB_FAULTS)
    for fault in happened:
        table.add(fault)


def stop_runs(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Asked to stop."""
    for _ in range(2):
        with table.trial("SIGTERM of the flow process during training"):
            stopping.terminated(box)
    for _ in range(2):
        with table.trial("Ctrl-C of `codetune up` during training"):
            stopping.ended_up(box, signal.SIGINT)
    with table.trial("SIGKILL of `codetune up` during training"):
        stopping.ended_up(box, signal.SIGKILL)
    office = workers.Office.opened(box)
    for _ in range(4):
        with table.trial("cancelled from the dashboard during training"):
            stopping.cancelled(office)


@contextmanager
def reported(table: Table, *faults: str) -> Iterator[None]:
    """A block that counts by itself; when it fails, each of these faults was not survived once."""
    try:
        yield
    except Exception:
        traceback.print_exc()
        for fault in faults:
            table.add(fault, survived=0)


GROUPS: dict[str, Group] = {
    "kills": kill,
    "workers": kill_workers,
    "stop": stop_runs,
    "store": damage_store,
    "surroundings": change_surroundings,
    "network": cut_networks,
}


HALVES = (("kills", "store", "network"), ("workers", "stop", "surroundings"))
"""What goes on at the same time, in order."""


def both_halves(arguments: list[str]) -> bool:
    """Run each half in a process of its own. Returns whether everything was survived."""
    halves = [subprocess.Popen([sys.executable, "-m", "tests.chaos", *arguments, "--only", *half]) for half in HALVES]
    try:
        statuses = [half.wait() for half in halves]
        return not any(statuses)
    finally:
        for half in halves:
            half.terminate()  # what is over does not mind
            half.wait()


def run(names: list[str], seed: int, table: Table, count: int) -> None:
    """Some groups, on one machine."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, machine(Path(folder)) as box:
        say(f"the undisturbed run took {sum(box.seconds.values()):.0f} s in its stages: {box.seconds}")
        box.warm_up()
        os.environ.update({**environment(box.folder), **box.api})  # for what is deployed, and asked, from here
        settings.apply(quiet=True)
        for name in names:
            say(f"{name}: begins")
            GROUPS[name](box, random.Random(f"{seed}-{name}"), table, count)
            say(f"{name}: done")


def main() -> int:
    """Run the groups that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=GROUPS, help="on one machine, one after the other")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started here must end, too
    if options.only:
        table = Table(options.out)
        run(options.only, options.seed, table, options.kills)
        return 0 if table.all_survived else 1
    survived = both_halves(sys.argv[1:])
    if options.out == RESULTS:
        renew_document()
    return 0 if survived else 1


if __name__ == "__main__":
    sys.exit(main())
