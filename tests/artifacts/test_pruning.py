"""The ledger and pruning, with processes that are really alive or really killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import time
from pathlib import Path

import pytest

from artifacts.pruning import prune
from artifacts.registry import Registry, now
from artifacts.schema import RunReport
from artifacts.store import Store
from artifacts.verdicts import Candidate, GateDecision, Ruling


def publish(store: Store, number: int) -> str:
    """An artifact; its place."""
    key = str(number) * 64
    with store.lock("reporting", key):
        workdir = store.workdir("reporting", key)
        (workdir / "report.html").write_text("x" * 1000)
        return store.publish("reporting", key, RunReport(verdict="fine"), workdir).place


def ended_run(store: Store, number: int) -> str:
    entry = store.ledger.open(f"run-{number}", "demo")
    entry.uses(f"reporting/{str(number) * 64}", resumable=False)
    place = publish(store, number)
    entry.became(place, "ran", 1.0)
    entry.end("completed")
    return place


def live_run(root: Path, begun: multiprocessing.synchronize.Event) -> None:
    store = Store(root)
    entry = store.ledger.open("live", "demo")
    entry.uses(publish(store, 9), resumable=False)
    begun.set()
    time.sleep(600)


def test_what_kept_runs_refer_to_stays_and_all_else_goes(store: Store) -> None:
    places = [ended_run(store, number) for number in range(3)]
    orphan = publish(store, 7)
    store.workdir("sampling", "8" * 64)
    newest = store.ledger.runs()[0].id
    told = prune(store, 1, dry_run=True)
    assert set(store.places()) == {*places, orphan}
    done = prune(store, 1)
    assert done == told and done.bytes > 3000 and done.attempts == (f"sampling/{'8' * 64}",)
    assert store.places() == [place for place in places if place[-1] == newest[-1]]
    assert [run.id for run in store.ledger.runs()] == [newest] and not store.attempts()
    assert not (store.place / ".trash").exists()


def test_a_live_run_keeps_what_it_uses_and_a_killed_one_does_not(tmp_path: Path) -> None:
    store, context = Store(tmp_path / "store"), multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=live_run, args=(store.place, begun))
    process.start()
    assert begun.wait(60)
    assert [run.state for run in store.ledger.runs()] == ["running"]
    assert prune(store, 0).artifacts == () and store.places()
    os.kill(process.pid or 0, 9)
    process.join()
    assert [run.state for run in store.ledger.runs()] == ["killed"]
    assert len(prune(store, 0).artifacts) == 1 and not store.places()


def test_what_is_being_built_stays(store: Store) -> None:
    """Also where no run is listed that builds it: others than runs do, and a list can be lost."""
    places = [publish(store, number) for number in (1, 2)]
    attempt = store.workdir("training", "3" * 64)
    (attempt / "checkpoint").write_text("1")
    with store.lock("reporting", "1" * 64), store.lock("training", "3" * 64):
        done = prune(store, 0)
        assert (done.artifacts, done.attempts) == ((places[1],), ())
        assert store.places() == [places[0]] and attempt.is_dir()
    done = prune(store, 0)
    assert (done.artifacts, done.attempts) == ((places[0],), (f"training/{'3' * 64}",))


def test_what_a_live_run_works_in_stays_also_where_nothing_would_continue_it(store: Store) -> None:
    entry = store.ledger.open("run", "demo")
    entry.uses(f"sampling/{'1' * 64}", resumable=False)
    store.workdir("sampling", "1" * 64)
    assert prune(store, 0).attempts == () and store.attempts()
    entry.end("completed")
    assert prune(store, 0).attempts == (f"sampling/{'1' * 64}",)


@pytest.mark.parametrize("keep", [0, 1])
def test_what_an_unfinished_run_would_continue_from_goes_only_with_it(store: Store, keep: int) -> None:
    entry = store.ledger.open("run", "demo")
    for stage in ("sampling", "training"):
        entry.uses(f"{stage}/{'1' * 64}", resumable=stage == "training")
        (store.workdir(stage, "1" * 64) / "checkpoint").write_text("1")
    entry.end("failed", "memory ran out")
    prune(store, keep)
    assert store.attempts() == [f"training/{'1' * 64}"] * keep


@pytest.mark.parametrize("kind", ["half", "FIFO", "device"])
def test_a_record_that_cannot_be_read_counts_as_none(store: Store, kind: str) -> None:
    ended_run(store, 1)
    record = store.place / ".runs" / "run-1.json"
    record.unlink()
    {
        "half": lambda: record.write_text("{"),
        "FIFO": lambda: os.mkfifo(record),
        "device": lambda: record.symlink_to("/dev/zero"),
    }[kind]()
    os.mkfifo(store.place / ".trash")
    store.empty_trash()
    assert store.ledger.runs() == []


@pytest.mark.parametrize("ruling", ["promote", "hold"])
def test_a_judged_model_stays(store: Store, tmp_path: Path, ruling: Ruling) -> None:
    """The place of its report stands for what the registry refers to."""
    place, other = ended_run(store, 1), ended_run(store, 2)
    decision = GateDecision(ruling=ruling, reasons=(), judgements=())
    judged = Candidate(
        id="a" * 12, model="exporting/a", fingerprint="a", recipe="", decision=decision, report=place, recorded=now()
    )
    (tmp_path / "results.parquet").write_text("results")
    registry = Registry(store.registry)
    registry.add(judged, tmp_path / "results.parquet")
    event = registry.settle(judged, lambda champion: (ruling, ()))
    assert prune(store, 0).artifacts == (other,) and store.places() == [place]
    assert event.kind == ruling and registry.find("a" * 12).report == place
