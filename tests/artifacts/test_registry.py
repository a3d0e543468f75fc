"""The registry: one champion, moved once and whole, whoever is killed and whoever comes at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from artifacts.errors import InputError, StageError
from artifacts.registry import Registry, now
from artifacts.verdicts import Candidate, GateDecision, Ruling, Version


def candidate(name: str, judged: int = 0) -> Candidate:
    """A model called by a letter."""
    return Candidate(
        id=f"{name * 11}{judged}",
        model=f"exporting/{name * 8}",
        fingerprint=name,
        recipe="demo",
        decision=GateDecision(ruling="promote", reasons=("Good.",), judgements=()),
        report=f"reporting/{name * 8}",
        recorded=now(),
    )


def always(ruling: Ruling) -> Callable[[Version | None], tuple[Ruling, tuple[str, ...]]]:
    return lambda champion: (ruling, (f"against {champion.name if champion else 'nobody'}",))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.parquet"
    path.write_bytes(b"what it did")
    return path


@pytest.fixture
def registry(tmp_path: Path, results: Path) -> Registry:
    found = Registry(tmp_path / "registry")
    for name in "abcd":
        found.add(candidate(name), results)
    return found


def champion(registry: Registry) -> int | None:
    found = registry.champion()
    return found.number if found else None


def test_promotions_count_up_and_holds_do_not(registry: Registry) -> None:
    events = [registry.settle(candidate(name), always(ruling)) for name, ruling in (("a", "promote"), ("b", "hold"))]
    last = registry.settle(candidate("c"), always("promote"))
    assert [event.version for event in (*events, last)] == [1, None, 2]
    assert last.reasons == ("against v1",) and champion(registry) == 2


def test_a_candidate_is_settled_once(registry: Registry) -> None:
    first = registry.settle(candidate("a"), always("promote"))
    registry.settle(candidate("b"), always("promote"))
    registry.rollback(None, "b is slow")
    assert registry.settle(candidate("a"), always("hold")) == first
    assert registry.settle(candidate("b"), always("promote")).version == 2
    assert len(registry.events()) == 3 and champion(registry) == 1


def test_a_model_judged_again_is_no_new_version(registry: Registry, results: Path) -> None:
    registry.settle(candidate("a"), always("promote"))
    again = candidate("a", judged=1)
    registry.add(again, results)
    event = registry.settle(again, always("promote"))
    assert (event.kind, event.version) == ("hold", 1) and list(registry.versions()) == [1]


def test_going_back_goes_further_each_time(registry: Registry) -> None:
    for name in "abc":
        registry.settle(candidate(name), always("promote"))
    seen = []
    for _ in range(2):
        registry.rollback(None, "a bad day")
        seen.append(champion(registry))
    assert seen == [2, 1]
    with pytest.raises(InputError) as refused:
        registry.rollback(None, "further")
    assert refused.value.field == "VERSION" and "`codetune models`" in str(refused.value.remedy)
    assert champion(registry) == 1
    registry.rollback(3, "it was not that bad")
    assert champion(registry) == 3 and registry.events()[-1].reasons == ("it was not that bad",)


def test_a_held_model_is_findable_and_can_be_promoted_by_hand(registry: Registry) -> None:
    registry.settle(candidate("b"), always("hold"))
    event = registry.promote(registry.find("bbbb"), "we want it")
    assert (event.by, event.version, champion(registry)) == ("hand", 1, 1)
    assert registry.find("v1") == registry.find("champion") == registry.find("exporting/bbbbbbbb")
    with pytest.raises(InputError, match="champion already"):
        registry.promote(registry.find("v1"), "again")


def test_a_secret_in_a_reason_is_not_kept(registry: Registry, tmp_path: Path) -> None:
    token = "ghp_" + "A1b2" * 9
    registry.settle(candidate("a"), always("hold"))
    registry.promote(registry.find("aaaa"), f"as {token} allows")
    registry.settle(candidate("b"), always("promote"))
    registry.rollback(None, f"https://me:{token}@host/x")
    kept = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(kept) > 4 and not any(token in text for text in kept)


@pytest.mark.parametrize("name", ["v9", "zzzz", "", "a"])
def test_an_unknown_model_is_said(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match=f"“{name}”") as refused:
        registry.find(name)
    assert refused.value.field == "MODEL" and "`codetune models --all`" in str(refused.value.remedy)


def test_what_is_referred_to_is_told(registry: Registry) -> None:
    assert registry.places() == {f"{stage}/{name * 8}" for name in "abcd" for stage in ("exporting", "reporting")}


@pytest.mark.parametrize("kind", ["half", "FIFO"])
def test_a_record_that_cannot_be_read_is_said(registry: Registry, tmp_path: Path, kind: str) -> None:
    registry.settle(candidate("a"), always("promote"))
    event = tmp_path / "registry" / "events" / "00000001.json"
    event.unlink()
    os.mkfifo(event) if kind == "FIFO" else event.write_text("{")
    with pytest.raises(StageError, match=str(event)) as refused:
        registry.champion()
    assert refused.value.field == "store"


def test_killed_at_any_moment(tmp_path: Path, results: Path) -> None:
    survived, step = False, 0
    while not survived:
        step += 1
        registry = Registry(tmp_path / f"registry-{step}")
        registry.add(candidate("a"), results)
        registry.settle(candidate("a"), always("promote"))
        survived = in_a_process_killed_at(step, partial(add_and_settle, Registry(registry._root), "b", results))
        assert champion(registry) in (1, 2)
        add_and_settle(registry, "b", results)
        assert champion(registry) == 2 and [event.number for event in registry.events()] == [1, 2]
        assert not list(registry._root.glob("*/.*")), step
    assert step > 10


def add_and_settle(registry: Registry, name: str, results: Path) -> None:
    registry.add(candidate(name), results)
    registry.settle(candidate(name), always("promote"))


def in_a_process_killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run it in a fork that kills itself at that operation on the disk. Whether it came to its end before."""
    process = os.fork()
    if process == 0:
        calls = 0

        def watched(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **keywords: object) -> object:
                nonlocal calls
                calls += 1
                if calls == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return call

        os.fsync, Path.rename, Path.mkdir = watched(os.fsync), watched(Path.rename), watched(Path.mkdir)  # type: ignore[assignment,method-assign]
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


PROMOTE = """
import sys
from pathlib import Path
from tests.artifacts.test_registry import Registry, always, candidate
registry = Registry(Path(sys.argv[1]))
sys.stdin.readline()
print(registry.settle(candidate(sys.argv[2]), always("promote")).model_dump_json())
"""


def test_two_promotions_at_once_follow_each_other(registry: Registry, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROMOTE, str(tmp_path / "registry")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([*command, name], **pipes, text=True) for name in "abc"]  # type: ignore[call-overload]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    events = registry.events()
    assert [event.version for event in events] == [1, 2, 3]
    assert [event.reasons[0] for event in events] == [f"against {who}" for who in ("nobody", "v1", "v2")]
    assert {event.candidate[0] for event in events} == set("abc")
