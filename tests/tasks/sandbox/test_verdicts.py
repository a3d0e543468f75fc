"""Verdicts of ordinary programs, and what this machine's protection is."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from artifacts.errors import StageError
from tasks import sandbox
from tasks.sandbox import Limits, Program, jails

TEST = "assert double(2) == 4\nassert double([1]) == [1, 1]\n"


def judged(source: str, test: str = TEST, seconds: float = 10) -> sandbox.Verdict:
    return jails.judge(Program(id="p", source=source, test=test, entry_point="double"), Limits(seconds=seconds))


def test_this_machine_holds_every_required_layer() -> None:
    protection = sandbox.probe()
    assert protection.level == "strong", protection.summary
    assert protection.sufficient and {"landlock", "seccomp", "limits", "user"} <= set(protection.layers)


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def double(x): return x * 2", "passed"),
        ("def double(x): return x", "failed"),
        ("def double(x): raise ValueError('no')", "error"),
        ("def double(x): import sys; sys.exit(0)", "error"),
        ("def double(x): import os; os._exit(0)", "error"),
        ("def double(x) return", "error"),
        ("x = 1", "error"),
        ("def double(x): return [0] * 10**10", "memory"),
        ("class E(int):\n    def __eq__(self, other): return True\ndef double(x): return E(5)", "failed"),
        ("class E:\n    def __eq__(self, other): return True\ndef double(x): return E()", "failed"),
    ],
)
def test_outcomes(source: str, outcome: str) -> None:
    assert judged(source).outcome == outcome


def test_what_never_ends_is_stopped_and_said() -> None:
    assert judged("def double(x):\n    while True: pass", seconds=1).outcome == "timeout"
    endless = judged("def double(x): return x * 2", test="double(1)\nwhile True: pass", seconds=1)
    assert endless.outcome == "timeout" and "test itself" in endless.detail


def test_changed_arguments_and_callbacks_reach_the_test() -> None:
    test = "given = [3, 1]\nassert double(given, lambda x: -x) is None\nassert given == [3, 1, -7]"
    assert judged("def double(a, f): a.append(f(7))", test).passed


def test_with_few_open_files_fewer_are_judged_at_a_time() -> None:
    program = Program(id="p", source="def double(x): return x * 2", test=TEST, entry_point="double")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, usual[1]))
    try:
        assert all(one.passed for one in sandbox.run([program] * 20, workers=20))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_below_the_floor_nothing_runs_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine without Landlock cannot be had here: this one is told to lack it.
    found = sandbox.probe()
    layers = {name: word for name, word in found.layers.items() if name != "landlock"}
    weak = found.model_copy(update={"layers": layers, "level": "weak", "sufficient": False, "problem": "no landlock"})
    monkeypatch.setattr(sandbox, "probe", lambda: weak)
    program = Program(id="p", source="def double(x): return x * 2", test=TEST, entry_point="double")
    with pytest.raises(StageError, match="no landlock"):
        sandbox.run([program])
    assert next(sandbox.run([program], allow_weak=True)).passed
