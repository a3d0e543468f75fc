"""From completions to verdicts, in the real sandbox."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artifacts.errors import StageError
from artifacts.schema import Executions, Generations
from tasks import sandbox
from tasks.execution import STAGE, ExecutionConfig, run_execution
from tests.tasks.execution.made import BROKEN, RIGHT, WRONG, generations
from tests.tasks.functional.suites import row

ENDLESS = "def check(candidate):\n    while True: pass\n"


def test_every_side_of_every_problem_has_a_verdict_with_its_reason(solved: Generations, executed: Executions) -> None:
    rows = pq.read_table(executed.path / "verdicts.parquet").to_pylist()
    told = {(row["task_id"], row["side"]): row["reason"] for row in rows}
    assert len(rows) == 2 * 12 + 3
    assert told["T/0", "base"] == told["T/0", "again"] == told["T/0", "tuned"] == "passed"
    assert (told["T/8", "tuned"], told["T/9", "tuned"], told["T/11", "base"]) == (
        "wrong answer",
        "syntax error",
        "exception: KeyError",
    )
    assert all(row["passed"] == (row["reason"] == "passed") for row in rows)


def test_what_several_sides_wrote_alike_is_run_once(executed: Executions) -> None:
    runs = pq.read_table(executed.path / "runs.parquet").to_pylist()
    assert len(runs) == executed.programs == 12 + 4
    assert len({(run["task_id"], run["completion"]) for run in runs}) == 16
    assert "KeyError" in next(run["detail"] for run in runs if run["task_id"] == "T/11" and "KeyError" in run["detail"])


def test_times_do_not_decide_the_fingerprint(executed: Executions) -> None:
    assert executed.measurements == ("runs.parquet",)
    assert "seconds" not in pq.read_schema(executed.path / "verdicts.parquet").names


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RIGHT, "passed"),
        (WRONG, "wrong answer"),
        (BROKEN, "syntax error"),
        ("    return y\n", "exception: NameError"),
        ("    class passed(Exception): pass\n    raise passed\n", "exception: passed"),
        ("    pass\nclass passed(Exception): pass\nraise passed\n", "exception: passed"),
        ("    raise ValueError('passed: x')\n", "exception: ValueError"),
        ("    class E(BaseException): pass\n    raise E('passed')\n", "tried to exit"),
        ("    raise SystemExit(0)\n", "tried to exit"),
        ("    while True: pass\n", "timed out"),
        ("    return '\0'\n", "the program has NUL bytes; Python refuses them"),
        ("    pass\ndel twice\n", "no such function"),
        ("    return 'x' * 10**12\n", "out of memory"),
    ],
)
def test_reasons(answer: str, reason: str, tmp_path: Path) -> None:
    made = generations(tmp_path, {"base": [answer], "tuned": [answer]})
    run_execution(ExecutionConfig(seconds=1 if reason == "timed out" else 10), generations=made, workdir=tmp_path)
    assert set(pq.read_table(tmp_path / "verdicts.parquet")["reason"].to_pylist()) == {reason}


def test_a_pass_by_stopping_the_tests_loop_is_counted_apart(tmp_path: Path) -> None:
    looping = "def check(candidate):\n    assert all(map(lambda x: candidate(x) == 2 * x, [1, 2]))\n"
    stops = "    raise StopIteration\n"
    made = generations(
        tmp_path, {"base": [RIGHT, WRONG], "tuned": [stops, RIGHT]}, *(row(n, test=looping) for n in (0, 1))
    )
    done = run_execution(ExecutionConfig(), generations=made, workdir=tmp_path)
    rows = pq.read_table(tmp_path / "verdicts.parquet").to_pylist()
    told = {(row["task_id"], row["side"]): (row["passed"], row["reason"]) for row in rows}
    assert told["T/0", "tuned"] == (True, "passed by StopIteration") and told["T/0", "base"] == (True, "passed")
    assert (done.stopped, done.passed, len(done.notes)) == (1, 2, 1) and "T/0" in done.notes[0]
    rows = {label: count for label, count in STAGE.show(done)[0].blocks[0].rows if "StopIteration" in label}
    assert list(rows.values()) == ["1"]


def test_a_problem_that_no_program_can_pass_is_left_out_and_named(tmp_path: Path) -> None:
    made = generations(tmp_path, {"base": [RIGHT], "tuned": [RIGHT]}, row(0, test=ENDLESS))
    done = run_execution(ExecutionConfig(seconds=1), generations=made, workdir=tmp_path)
    assert (done.programs, done.problems) == (0, 0)
    assert len(done.notes) == 1 and "T/0" in done.notes[0]


def test_below_the_floor_no_program_runs_unless_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine without Landlock cannot be had here: this one is told to lack it.
    found = sandbox.probe()
    weak = found.model_copy(update={"level": "weak", "sufficient": False, "problem": "without landlock"})
    monkeypatch.setattr(sandbox, "probe", lambda: weak)
    made = generations(tmp_path, {"base": [RIGHT], "tuned": [RIGHT]})
    with pytest.raises(StageError, match="without landlock") as caught:
        run_execution(ExecutionConfig(), generations=made, workdir=tmp_path)
    assert "execution.allow_weak_sandbox=true" in (caught.value.remedy or "")
    assert not (tmp_path / "verdicts.parquet").exists()
    done = run_execution(ExecutionConfig(allow_weak_sandbox=True), generations=made, workdir=tmp_path)
    assert done.passed == 1 and "weak" in done.summary
    assert "without landlock" in str(STAGE.show(done)[0].blocks[0])
