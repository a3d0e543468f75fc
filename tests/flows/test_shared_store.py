"""Another user's store: every command works in it, or says in one message why it cannot."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifacts.registry import Registry, now
from artifacts.schema import RunReport
from artifacts.store import Store
from artifacts.verdicts import Candidate, GateDecision
from flows import cli, finetune, reevaluation

KEY = "1" * 64
READING = [["runs"], ["models"], ["models", "--all"]]
WRITING = [
    ["prune", "--keep", "0"],
    ["prune", "--keep", "0", "--dry-run"],
    ["promote", "a" * 12, "--reason", "mine"],
    ["rollback", "--reason", "mine"],
    ["run", "demo"],
    ["evaluate", "a" * 12],
]

assert finetune and reevaluation  # imported while it may be: nobody may not read every interpreter's library
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """With a run, an artifact and a judged model."""
    for folder in tmp_path.parents:
        if folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    store = Store(tmp_path / "store")
    entry = store.ledger.open("run-1", "demo")
    entry.uses(f"reporting/{KEY}", resumable=False)
    (store.workdir("reporting", KEY) / "report.html").write_text("a report of their code")
    workdir = store.workdir("reporting", KEY)
    place = store.publish("reporting", KEY, RunReport(verdict="fine"), workdir).place
    entry.became(place, "ran", 1.0)
    entry.end("completed")
    decision = GateDecision(ruling="promote", reasons=(), judgements=())
    (tmp_path / "results.parquet").write_text("results")
    judged = Candidate(
        id="a" * 12, model=place, fingerprint="a", recipe="demo", decision=decision, report=place, recorded=now()
    )
    registry = Registry(store.registry)
    registry.add(judged, tmp_path / "results.parquet")
    registry.settle(judged, lambda champion: ("promote", ()))
    return store.place


@contextmanager
def nobody() -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def open_to_all(store: Path, *, writable: bool = False) -> None:
    """What the owner may do on purpose."""
    for path in (store, *store.rglob("*")):
        if path.suffix != ".lock":
            path.chmod(path.stat().st_mode | (0o005 if path.is_dir() else 0o004))
    if writable:
        store.chmod(0o777)


@pytest.mark.parametrize("shared", ["closed", "root only", "readable", "root writable"])
@pytest.mark.parametrize("command", READING + WRITING, ids=" ".join)
def test_a_command_in_another_users_store_ends_in_words(
    theirs: Path, shared: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    match shared:
        case "root only":
            theirs.chmod(0o755)
        case "readable" | "root writable":
            open_to_all(theirs, writable=shared == "root writable")
    before = sorted(path for path in theirs.rglob("*"))
    with nobody():
        status = cli.guarded([*command, "--store", str(theirs)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert (status == 0) == (shared in ("readable", "root writable") and command in READING) and status < 3
    assert shared == "root writable" or sorted(path for path in theirs.rglob("*")) == before


def test_who_may_read_sees_what_the_owner_sees(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_to_all(theirs)
    command = ["runs", "--json", "--store", str(theirs)]
    with nobody():
        assert cli.guarded(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert cli.guarded(command) == 0
    assert told == json.loads(capsys.readouterr().out) and told["runs"][0]["state"] == "completed"


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_what_a_store_holds_is_closed_to_others(theirs: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = Store(tmp_path / "mine")
        workdir = store.workdir("sampling", KEY)
        (workdir / "parts").mkdir()
        (workdir / "parts" / "train.parquet").write_text("their code")
        store.publish("sampling", KEY, RunReport(verdict="fine"), workdir)
        with store.lock("sampling", KEY):
            store.ledger.open("run", "demo").end("completed")
    finally:
        os.umask(before)
    for root in (theirs, store.place):
        assert [path for path in (root, *root.rglob("*")) if not path.is_symlink() and opened(path, root)] == []


def opened(path: Path, root: Path) -> bool:
    """Whether others could get at it if the root were open to them, as a folder that was there before may be."""
    way = [path, *(parent for parent in path.parents if parent != root and parent.is_relative_to(root))]
    return all(part.stat().st_mode & 0o007 for part in way)


def test_a_store_in_a_folder_that_was_there_leaves_its_mode_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2775)
    store = Store(folder)
    (store.workdir("sampling", KEY) / "train.parquet").write_text("code")
    assert folder.stat().st_mode & 0o7777 == 0o2775
    assert {path.stat().st_mode & 0o777 for path in folder.glob(".*")} == {0o770}
    with store.ledger.gate():
        assert (folder / ".runs" / "gate.lock").stat().st_mode & 0o777 == 0o660
