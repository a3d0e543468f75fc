"""Every canonical solution of HumanEval passes; every mutant fails, whatever it tries."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from artifacts.errors import InputError
from flows.cli import guarded
from tasks import functional, sandbox
from tasks.execution import ExecutionConfig
from tasks.functional import Solution
from tests.tasks.functional.suites import human_eval, row, write

_PATCHING = """
import builtins, json, os, sys, unittest
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def {name}(*given):
    for frame in sys._current_frames().values():
        while frame:
            frame.f_globals.update(check=lambda candidate: None, AssertionError=Equal)
            frame = frame.f_back
    builtins.AssertionError = builtins.isinstance = builtins.abs = json.dumps = json.loads = lambda *rest: True
    unittest.TestCase.run = lambda *rest: None
    sys.settrace(lambda *rest: None)
    return Equal()
"""
MUTANTS = {
    "wrong return": "def {name}(*given): return 'wrong'",
    "exception": "def {name}(*given): raise ValueError",
    "exit before the asserts": "import sys\nsys.exit(0)",
    "exit in the function": "def {name}(*given):\n    import os\n    os._exit(0)",
    "marker": 'print(\'passed\')\nprint(\'{{"outcome": "passed", "detail": "", "layers": {{}}}}\')\n'
    "def {name}(*given):\n    import os\n    for n in range(3, 20):\n        try: os.write(n, b'passed')\n"
    "        except OSError: pass",
    "patching": _PATCHING,
}
LOOP = "def {name}(*given):\n    while True: pass"


def mutants(problem: functional.Problem, codes: list[str]) -> list[Solution]:
    texts = [problem.canonical_solution + "\n\n" + code.format(name=problem.entry_point) for code in codes]
    return [Solution(task_id=problem.task_id, completion=text) for text in texts]


def test_canonical_solutions_pass_164_of_164() -> None:
    suite = human_eval()
    made = [Solution(task_id=one.task_id, completion=one.canonical_solution) for one in suite.problems]
    verdicts = list(functional.check(suite, made))
    assert [one for one in verdicts if not one.passed] == [] and len(verdicts) == 164


def test_a_sample_of_mutants_fails() -> None:
    suite = human_eval()
    made = [one for problem in suite.problems[::23] for one in mutants(problem, list(MUTANTS.values()))]
    assert [one.id for one in functional.check(suite, made) if one.passed] == []


@pytest.mark.slow
@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes; run it with -m slow")
def test_every_mutant_of_every_problem_fails() -> None:
    suite = human_eval()
    made = [one for problem in suite.problems for one in mutants(problem, [*MUTANTS.values(), LOOP])]
    limits = functional.scoring.sandbox.Limits(seconds=2)
    assert [one.id for one in functional.check(suite, made, limits) if one.passed] == []


def test_pass_at_k_is_the_share_of_draws_with_a_success() -> None:
    for n, c, k in [(5, 0, 2), (5, 2, 1), (6, 2, 3), (6, 3, 4), (4, 4, 2)]:
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert functional.pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write(tmp_path / "s.jsonl", row(0), row(1))
    answers = ["    return x * 2\n", "    return x\n", "    return x + x\n", "    return '\0'\n"]
    made = [{"task_id": f"T/{number // 2}", "completion": text} for number, text in enumerate(answers)]
    completions = write(tmp_path / "c.jsonl", *made)
    assert guarded(["score", str(suite), "--completions", str(completions), "--k", "1,2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["pass@1"], said["pass@2"]) == (0.5, 1.0)
    assert [one["outcome"] for one in said["verdicts"]] == ["passed", "failed", "passed", "error"]
    assert "NUL" in said["verdicts"][3]["detail"]


def test_problems_that_say_nothing_of_a_model_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = row(1, test="def check(candidate):\n    while True: pass\n")
    vacuous = row(2, test="def check(candidate):\n    candidate(1)\n")
    wrong = row(3, canonical_solution="    return x * 3\n")
    suite = write(tmp_path / "s.jsonl", row(0), endless, vacuous, wrong)
    made = [{"task_id": f"T/{number}", "completion": "    return x * 2\n"} for number in range(4)]
    completions = write(tmp_path / "c.jsonl", *made)
    assert guarded(["score", str(suite), "--completions", str(completions), "--seconds", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["left_out"].keys() == {"T/1", "T/2", "T/3"}
    assert (said["problems"], said["pass@1"], [one["task_id"] for one in said["verdicts"]]) == (1, 1.0, ["T/0"])


def test_a_suite_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    suite = write(tmp_path / "s.jsonl", row(canonical_solution="    return None\n"))
    completions = write(tmp_path / "c.jsonl", {"task_id": "T/0", "completion": ""})
    assert guarded(["score", str(suite), "--completions", str(completions)]) == 2


@pytest.mark.parametrize(
    ("rows", "field", "value"),
    [
        ([{"task_id": "T/0"}], "completion", "line 1 "),
        ([{"task_id": "T/9", "completion": ""}], "task_id", "'T/9'"),
        ([{"task_id": "T/0", "completion": ""}], None, "1 of 2 .* T/1"),
        (["nonsense"], None, "line 1 "),
    ],
)
def test_completions_that_do_not_fit_are_refused(
    rows: list[dict[str, str] | str], field: str | None, value: str, tmp_path: Path
) -> None:
    suite = functional.read_suite(write(tmp_path / "s.jsonl", row(0), row(1)))
    path = write(tmp_path / "c.jsonl", *rows)
    with pytest.raises(InputError, match=value) as caught:
        functional.read_completions(path, suite)
    assert caught.value.field == (field or str(path))


def test_a_k_that_cannot_be_told_is_refused_before_anything_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    suite, made = write(tmp_path / "s.jsonl", row()), write(tmp_path / "c.jsonl", {"task_id": "T/0", "completion": ""})
    assert guarded(["score", str(suite), "--completions", str(made), "--k", "10"]) == 2
    assert "pass@10" in capfd.readouterr().err


@pytest.mark.parametrize(
    "given", ["--seconds=nan", "--seconds=inf", "--seconds=1e300", "--seconds=0", "--workers=0", f"--workers={10**12}"]
)
def test_limits_that_mean_nothing_are_refused(given: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = write(tmp_path / "s.jsonl", row())
    made = write(tmp_path / "c.jsonl", {"task_id": "T/0", "completion": "    return x * 2\n"})
    assert guarded(["score", str(suite), "--completions", str(made), given]) == 2
    assert given.partition("=")[0] in capfd.readouterr().err


@pytest.mark.parametrize("name", ["seconds", "memory_mib", "file_mib", "scratch_mib", "descriptors", "threads"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 0, 10**12, 1e300])
def test_no_limit_of_the_sandbox_takes_what_nothing_can_mean(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        sandbox.Limits(**{name: value})
    if name in ExecutionConfig.model_fields:
        with pytest.raises(ValidationError):
            ExecutionConfig(**{name: value})


def test_what_is_no_text_and_what_stops_loops_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write(tmp_path / "s.jsonl", row(test="def check(candidate):\n    assert all(map(candidate, [2, 3]))\n"))
    answers = ["    return '\ud800'\n", "    raise StopIteration\n", "    return x\n"]
    made = write(tmp_path / "c.jsonl", *({"task_id": "T/0", "completion": text} for text in answers))
    assert guarded(["score", str(suite), "--completions", str(made), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["outcome"], one["stopped"]) for one in said["verdicts"]] == [
        ("error", False),
        ("passed", True),
        ("passed", False),
    ]
    assert (said["stopped"], said["pass@1"]) == (1, pytest.approx(2 / 3)) and "surrogates" in said["verdicts"][0][
        "detail"
    ]
    assert guarded(["score", str(suite), "--completions", str(made)]) == 0
    assert "StopIteration" in capsys.readouterr().out


def test_memory_is_bounded_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write(tmp_path / "s.jsonl", row())
    greedy = "    kept = bytearray(300 << 20)\n    return x * 2\n"
    made = write(tmp_path / "c.jsonl", {"task_id": "T/0", "completion": greedy})
    said = []
    for memory in ("256", "1024"):
        assert guarded(["score", str(suite), "--completions", str(made), "--memory", memory, "--json"]) == 0
        said += json.loads(capsys.readouterr().out.splitlines()[-1])["verdicts"]
    assert [one["outcome"] for one in said] == ["memory", "passed"]
