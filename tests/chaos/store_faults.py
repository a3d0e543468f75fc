"""Damage to what lies in the store: artifacts, work directories, checkpoints."""

from __future__ import annotations

import importlib
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.store import MANIFEST, Store
from tasks.running.stage import Stage
from tasks.training.checkpoints import Checkpoints
from tests.chaos.damage import Harm, damage
from tests.chaos.kills import judge_results
from tests.chaos.machine import STAGES, Machine, Results, stop, wait_until

KINDS: dict[str, Stage[Any]] = {stage: importlib.import_module(f"tasks.{stage}").STAGE for stage in STAGES}
IN_WORDS: dict[Harm, str] = {"delete": "deleted", "truncate": "truncated", "flip": "one bit flipped"}


def artifacts_of(root: Path) -> Iterator[Path]:
    """The folders of a store's artifacts."""
    for stage in STAGES:
        yield from (manifest.parent for manifest in root.glob(f"{stage}/*/{MANIFEST}"))


def every_file(machine: Machine, harm: Harm, chance: random.Random) -> int:
    """Each file of each artifact in turn: damaged, it is not served but set aside. Returns how many."""
    assert machine.pristine is not None
    results, tried = machine.store(without=len(STAGES)), 0
    store = Store(results.root)
    for whole in artifacts_of(machine.pristine):
        stage, key = whole.parts[-2:]
        for file in sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size):
            place = results.root / stage / key
            assert store.find(stage, key, KINDS[stage].produces), f"{stage} was whole"
            damage(place / file.relative_to(whole), harm, chance)
            served = store.find(stage, key, KINDS[stage].produces)
            assert served is None, f"{stage}: {file.name} {IN_WORDS[harm]} was served"
            assert not place.exists()
            shutil.copytree(whole, place)
            tried += 1
    shutil.rmtree(results.root)
    return tried


def rebuild(machine: Machine, stage: str, harm: Harm, chance: random.Random) -> None:
    """A damaged artifact is found by the next run, which says so and builds it again, and nothing else."""
    results = machine.store(without=len(STAGES))
    (place,) = results.root.glob(f"{stage}/*/")
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    damage(chance.choice(files), harm, chance)
    attempt = machine.run(results)
    states = attempt.states()
    assert states == dict.fromkeys(STAGES, "cached") | {stage: "ran"}, states
    assert f"{stage} artifact {place.name[:12]} " in attempt.words()
    judge_results(machine, results)
    shutil.rmtree(results.root)


def half_written(machine: Machine, chance: random.Random) -> None:
    """Every stage finds a work directory in which another attempt left half of its files, some of them half."""
    assert machine.pristine is not None
    results = machine.store()
    for whole in artifacts_of(machine.pristine):
        stage, key = whole.parts[-2:]
        left = results.root / ".work" / stage / key / ("result" if stage == "training" else "")
        shutil.copytree(whole, left)
        for file in [path for path in left.rglob("*") if path.is_file()]:
            if chance.random() < 0.5:
                damage(file, "delete" if not file.stat().st_size else chance.choice(("delete", "truncate")), chance)
    (staged,) = results.root.glob(".work/training/*/")
    (staged / "checkpoints" / ".staging" / "checkpoint-4").mkdir(parents=True)
    (staged / "checkpoints" / ".staging" / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
    (staged / "checkpoints" / "fallback.json").write_text('{"first": ')
    assert set(machine.run(results).states().values()) == {"ran"}
    assert not results.unfinished(), results.unfinished()
    judge_results(machine, results)
    shutil.rmtree(results.root)


def interrupted(machine: Machine) -> Results:
    """A store whose training was killed with two checkpoints sealed."""
    results = machine.store(without=STAGES.index("training"))
    while not _two_checkpoints(results):
        attempt = machine.run(results)
        wait_until("two checkpoints", lambda: attempt.over or _two_checkpoints(results))  # noqa: B023
        stop(attempt.process, signal.SIGKILL)
        stop(attempt.training(), signal.SIGKILL)
        attempt.end()
        assert "training" not in results.finished(), "the training was too fast to be killed in time"
    return results


def torn(machine: Machine, killed: Results, harm: Harm, chance: random.Random) -> int:
    """Each file of the newest checkpoint in turn; the run steps back to the one before. Returns how many."""
    (root,) = killed.root.glob(".work/training/*/checkpoints")
    older, newest = sorted(path.name for path in root.glob("step-*"))
    names = [path.relative_to(root / newest) for path in sorted((root / newest).rglob("*")) if path.is_file()]
    for name in names:
        copy = machine.folder / "torn"
        shutil.copytree(root, copy)
        damage(copy / newest / name, harm, chance)
        found = Checkpoints(copy).newest()
        assert found == copy / older, f"{name} {IN_WORDS[harm]}: {found}"
        shutil.rmtree(copy)
    return len(names)


def step_back(machine: Machine, killed: Results, harm: Harm, chance: random.Random) -> None:
    """A run that finds its newest checkpoint torn continues from the one before, and gives the same bits."""
    results = Results(killed.root.with_name(f"{killed.root.name}-{harm}"))
    shutil.copytree(killed.root, results.root)
    older, newest = sorted(results.root.glob(".work/training/*/checkpoints/step-*"))
    damage(chance.choice([path for path in newest.rglob("*") if path.is_file()]), harm, chance)
    attempt = machine.run(results)
    assert attempt.states()["training"] == "resumed"
    assert "stepping back" in attempt.words()
    assert results.handle("training")["resumed_from"] == int(older.name.removeprefix("step-"))
    judge_results(machine, results)
    shutil.rmtree(results.root)


def _two_checkpoints(results: Results) -> bool:
    return len([*results.root.glob(".work/training/*/checkpoints/step-*/checkpoint.json")]) == 2
