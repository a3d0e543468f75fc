"""The stage: completions → programs → verdicts. Needs no model and no GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.progress import SILENT, Progress
from artifacts.rows import Row, read_rows, write_rows
from artifacts.schema import Executions, Generations, Protection
from tasks import functional, sandbox
from tasks.execution.config import ExecutionConfig
from tasks.execution.reasons import reason
from tasks.execution.view import sections
from tasks.functional import Solution, Suite
from tasks.running.stage import Stage
from tasks.sandbox import Verdict

SIDES = ("base", "again", "tuned")
VERDICT_COLUMNS = {
    "suite": "string",
    "item": "int32",
    **dict.fromkeys(("task_id", "side"), "string"),
    "passed": "bool",
    **dict.fromkeys(("outcome", "reason"), "string"),
}
RUN_COLUMNS = {**dict.fromkeys(("suite", "task_id", "completion", "detail"), "string"), "seconds": "float64"}

log = logging.getLogger(__name__)


def check_sandbox(config: ExecutionConfig) -> Protection:
    """What holds model-written programs in check on this machine.

    Raises:
        StageError: too little, and that was not allowed.
    """
    return sandbox.check(allow_weak=config.allow_weak_sandbox, how="execution.allow_weak_sandbox=true")


def run_execution(
    config: ExecutionConfig, *, generations: Generations, workdir: Path, progress: Progress = SILENT
) -> Executions:
    """Run every program once, also where several sides wrote the same, and write `verdicts.parquet` and `runs.parquet`.

    Raises:
        StageError: the sandbox is below its floor.
    """
    protection = check_sandbox(config)
    verdicts: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    notes: list[str] = []
    stops = 0
    rows = read_rows(generations.path / "completions.parquet")
    for asked in generations.functional:
        suite = functional.read_problems(generations.path / "problems" / f"{asked.name}.jsonl")
        progress.begin(f"checking the problems of {suite.name}")
        left_out = functional.unsound(suite, _limits(config), config.workers, allow_weak=config.allow_weak_sandbox)
        if left_out:
            notes.append(functional.in_words(suite.name, left_out))
            log.warning("%s", notes[-1])
        answers = [row for row in rows if row["suite"] == asked.name and row["path"] not in left_out]
        told = _run(suite, answers, config, progress)
        verdicts += _verdicts(answers, told)
        runs += [
            {"suite": suite.name, "task_id": task, "completion": text, "detail": one.detail, "seconds": one.seconds}
            for (task, text), one in told.items()
        ]
        stopped = [one.id for one in told.values() if one.stopped]
        stops += len(stopped)
        notes += _stopped(suite, stopped)
    write_rows(verdicts, workdir / "verdicts.parquet", VERDICT_COLUMNS)
    write_rows(runs, workdir / "runs.parquet", RUN_COLUMNS)
    return Executions(
        path=workdir,
        protection=protection,
        programs=len(runs),
        passed=sum(row["passed"] for row in verdicts if row["side"] == "tuned"),
        problems=sum(row["side"] == "tuned" for row in verdicts),
        stopped=stops,
        notes=tuple(notes),
    )


def _run(
    suite: Suite, answers: Sequence[Row], config: ExecutionConfig, progress: Progress
) -> dict[tuple[str, str], Verdict]:
    """Verdicts by task and completion."""
    different = dict.fromkeys((row["path"], row[side]) for row in answers for side in SIDES if row[side] is not None)
    made = [Solution(task_id=task, completion=text) for task, text in different]
    progress.begin(f"running programs, {suite.name}", len(made), "programs")
    told = {}
    verdicts = functional.check(suite, made, _limits(config), config.workers, allow_weak=config.allow_weak_sandbox)
    for one, verdict in zip(made, verdicts, strict=True):
        told[one.task_id, one.completion] = verdict
        progress.advance()
    return told


def _limits(config: ExecutionConfig) -> sandbox.Limits:
    return sandbox.Limits(seconds=config.seconds, memory_mib=config.memory_mib)


def _verdicts(answers: Iterable[Row], told: Mapping[tuple[str, str], Verdict]) -> list[dict[str, Any]]:
    found = []
    for row in answers:
        for side in SIDES:
            if row[side] is not None:
                verdict = told[row["path"], row[side]]
                found.append(
                    {
                        **{"suite": row["suite"], "item": row["item"], "task_id": row["path"], "side": side},
                        "passed": verdict.passed,
                        "outcome": verdict.outcome,
                        "reason": reason(verdict),
                    }
                )
    return found


def _stopped(suite: Suite, tasks: Sequence[str]) -> list[str]:
    """Passes that come of ending a loop of the test's early. Plain Python gives them; they are no aim to train for."""
    if not tasks:
        return []
    return [
        f"{len(tasks):,} programs for {suite.name} passed after raising StopIteration, which can end a loop of the test"
        f" before its last case: {', '.join(sorted(set(tasks))[:5])}{' …' if len(set(tasks)) > 5 else ''}."
    ]


STAGE = Stage(name="execution", version=2, run=run_execution, produces=Executions, sections=sections, needs_gpu=False)
SHIPPED = replace(STAGE, name="shipped-execution")
"""The same of a form that is shipped."""
