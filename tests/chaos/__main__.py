"""The long form: `make chaos`, or `python -m tests.chaos --kills 100 --seed 1 --out bench/results/chaos.json`.

Prints what it does, writes the table after every trial, and ends with status 1 when something was not survived.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos import kills, workers
from tests.chaos.machine import PROJECT, Machine, machine
from tests.chaos.results import Table

Group = Callable[[Machine, random.Random, Table, int], None]
VICTIMS: tuple[tuple[str, kills.Victim, float], ...] = (
    ("SIGKILL of the flow process", kills.flow, 0.52),
    ("SIGKILL of the training process", kills.training, 0.28),
    ("SIGKILL of the server", kills.server, 0.08),
)
"""With the share of all kills; the rest are the worker's."""
WORKER = "SIGKILL of the worker"


def kill(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Chains of kills, mixed, until each victim had its share."""
    shares = {name: round(count * share) for name, _, share in VICTIMS}
    by_name = {name: victim for name, victim, _ in VICTIMS}
    while due := [name for name in by_name for _ in range(shares[name] - table.tried(name))]:
        names = chance.sample(due, min(8, len(due)))
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
        for name, number in struck.items():
            table.add(name, number, number if passed else 0)
        say(f"{sum(struck.values())} kills in a chain: {'survived' if passed else 'NOT survived'}")


def kill_workers(box: Machine, chance: random.Random, table: Table, count: int) -> None:
    """Chains of kills of the worker."""
    office = workers.Office(box)
    while (left := count - sum(round(count * share) for *_, share in VICTIMS) - table.tried(WORKER)) > 0:
        try:
            number = workers.chain(office, chance, min(6, left))
            table.add(WORKER, number, number)
        except Exception:
            traceback.print_exc()
            table.add(WORKER, survived=0)
        say(f"workers killed so far: {table.tried(WORKER)}")


GROUPS: dict[str, Group] = {"kills": kill, "workers": kill_workers}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Run the groups that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--out", type=Path, default=PROJECT / "bench" / "results" / "chaos.json")
    options = parser.parse_args()
    table = Table(options.out)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, machine(Path(folder)) as box:
        say(f"the undisturbed run took {sum(box.seconds.values()):.0f} s in its stages: {box.seconds}")
        for name in options.only:
            say(name)
            GROUPS[name](box, random.Random(f"{options.seed}-{name}"), table, options.kills)
    return 0 if table.all_survived else 1


if __name__ == "__main__":
    sys.exit(main())
