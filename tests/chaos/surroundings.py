"""Disks that are full or not to be written to, a clock that goes backwards, and others who do the same at once.

File systems are mounted: that takes root, and the scenarios that need it say so.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from artifacts import digest
from tests.chaos.kills import judge_results
from tests.chaos.machine import STAGES, Attempt, Machine, Results

NOBODY = 65534
PAGE = 4096
CAN_MOUNT = (
    os.geteuid() == 0
    and not subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
)
"""Whether this process may mount file systems."""


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """`mount <options> folder` for the time of the block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refused(attempt: Attempt, *words: str) -> None:
    """The run ended with a message that a person understands, and nothing of it is left."""
    status = attempt.end()
    said = attempt.words()
    assert status in (1, 2, 3), f"status {status}: {said}"
    assert "error:" in said and "Traceback" not in said.partition("error:")[2], said
    assert any(word in said for word in words), said


def completes(machine: Machine, results: Results) -> None:
    """The next run completes, does nothing again that was finished, and gives the same bits."""
    before = results.finished()
    states = machine.run(results).states()
    assert {stage for stage, state in states.items() if state == "cached"} == set(before), (states, set(before))
    assert not results.held_locks() and not results.unfinished(), (results.held_locks(), results.unfinished())
    judge_results(machine, results)


def disk_full(machine: Machine, stage: str, chance: random.Random) -> None:
    """The disk has less room than the stage's artifact takes."""
    number = STAGES.index(stage)
    before = machine.store(without=number)
    assert machine.pristine is not None
    (artifact,) = machine.pristine.glob(f"{stage}/*/")
    needed = sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file())
    with mounted(machine.folder / f"disk-{uuid4().hex[:6]}", "-t", "tmpfs", "-o", "size=256m", "tmpfs") as disk:
        results = Results(disk / "store")
        shutil.copytree(before.root, results.root)
        free = os.statvfs(disk).f_bavail * PAGE
        room = chance.randrange(max(PAGE, min(needed, 8 << 20) // 2)) // PAGE * PAGE
        with (disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free - room)
        refused(machine.run(results), "space", "full")
        assert set(results.finished()) == {*STAGES[:number]}, results.finished()
        (disk / "ballast").unlink()
        completes(machine, results)
    shutil.rmtree(before.root)


def read_only(machine: Machine, stage: str) -> None:
    """The store's file system is read-only when the run begins."""
    results = machine.store(without=STAGES.index(stage))
    with mounted(results.root, "--bind", str(results.root)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(results.root)], check=True)
        refused(machine.run(results), "cannot write", "Read-only")
    completes(machine, results)
    shutil.rmtree(results.root)


def permission_lost(machine: Machine, what: str) -> None:
    """A user who is not root may no longer write to a part of the store, or not read it."""
    results = machine.store(without=STAGES.index("evaluation"))
    home = machine.folder / f"home-{uuid4().hex[:6]}"
    home.mkdir()
    machine.folder.chmod(0o755)
    for path in (results.root, home, *results.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    lost = next(iter(sorted(results.root.glob(what))))
    mode = lost.stat().st_mode
    lost.chmod(0)

    def run() -> Attempt:
        return machine.run(
            results,
            variables={"PREFECT_HOME": str(home / "prefect"), "HF_HOME": str(home / "hub"), "HOME": str(home)},
            prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        )

    refused(run(), "Permission denied", "cannot write", "cannot read", "may")
    lost.chmod(mode)
    before = results.finished()
    states = run().states()
    assert {stage for stage, state in states.items() if state == "cached"} == set(before), states
    judge_results(machine, results)
    shutil.rmtree(results.root)


def clock_set_back(machine: Machine, chance: random.Random) -> None:
    """The clock of a run is a day and more behind that of the runs before: from the start, in the middle, at the end.

    `libfaketime` is what sets it back, for every process of the run, down to the C library.
    """
    from libfaketime import get_reload_information

    library = get_reload_information()[1]["LD_PRELOAD"]
    back = {"LD_PRELOAD": library, "FAKETIME": f"-{chance.randint(1, 400)}d", "DONT_FAKE_MONOTONIC": "1"}
    for number in (0, STAGES.index("training"), len(STAGES)):
        results = machine.store(without=number)
        before = results.finished()
        states = machine.run(results, variables=back).states()
        assert {stage for stage, state in states.items() if state == "cached"} == set(before), states
        judge_results(machine, results)
        assert set(machine.run(results).states().values()) == {"cached"}  # the clock is right again
        shutil.rmtree(results.root)


def at_once(machine: Machine, runs: int) -> None:
    """Several runs of the same recipe: each stage is computed by exactly one of them."""
    results = machine.store()
    attempts = [machine.run(results) for _ in range(runs)]
    states = [attempt.states() for attempt in attempts]
    for stage in STAGES:
        counts = Counter(each[stage] for each in states)
        assert counts == {"ran": 1, "cached": runs - 1}, f"{stage}: {counts}"
    assert not results.held_locks() and not results.unfinished()
    judge_results(machine, results)
    shutil.rmtree(results.root)


def two_recipes(machine: Machine) -> None:
    """Two recipes that share their first stages: those are computed once, the others by each; neither disturbs."""
    results = machine.store()
    one, other = machine.run(results), machine.run(results, "training.learning_rate=0.01")
    states = one.states(), other.states()
    for stage in STAGES[: STAGES.index("training")]:
        assert {each[stage] for each in states} == {"ran", "cached"}, (stage, states)
    assert all(each[stage] == "ran" for each in states for stage in STAGES[STAGES.index("training") :]), states
    again = machine.run(results)
    assert set(again.states().values()) == {"cached"}
    assert machine.pristine is not None
    digests = {digest.of_file(path) for path in results.root.glob("exporting/*/adapter/*.safetensors")}
    assert Results(machine.pristine).adapter() in digests and len(digests) == 2
    shutil.rmtree(results.root)
