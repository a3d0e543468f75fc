"""Completions that anybody made, run against a suite's tests: a verdict for each, and pass@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import SkipValidation

from artifacts.errors import InputError
from artifacts.schema import Record
from tasks import sandbox
from tasks.functional.problems import Suite
from tasks.functional.rows import rows_of


class Solution(Record):
    """What a model answered to a problem."""

    task_id: str
    completion: Annotated[str, SkipValidation]  # JSON can hold what is no text: that is its verdict
    is_program: bool = False
    """It is the whole program, prompt included, and not what comes after the prompt."""


class Scores(Record):
    """What a set of completions is worth."""

    pass_at: dict[int, float]
    """Mean over the problems, by k."""
    problems: int
    completions: int
    outcomes: dict[str, int]
    stopped: int
    """Completions that passed after raising `StopIteration` into the test: it may have ended before its last case."""
    verdicts: tuple[sandbox.Verdict, ...]
    """One for each completion, in their order; `id` is the task's."""


def read_completions(path: Path, suite: Suite) -> list[Solution]:
    """Rows `task_id, completion`, as human-eval writes them, or `task_id, solution`, whole programs, as EvalPlus does;
    other fields are passed over. MBPP's numbers count as ids.

    Raises:
        InputError: the file is not in order, names a problem that the suite has not, or leaves one out.
    """
    found = []
    known = {problem.task_id for problem in suite.problems}
    for place, row in rows_of(path):
        is_program = "completion" not in row and "solution" in row
        answer = "solution" if is_program else "completion"
        if type(row.get("task_id")) is int:
            row["task_id"] = f"Mbpp/{row['task_id']}"
        for field in ("task_id", answer):
            if not isinstance(row.get(field), str):
                what = "lacks this field" if row.get(field) is None else "has something else than text here"
                raise InputError(f"{place} {what}", field=field, remedy="write rows of `task_id, completion`")
        if row["task_id"] not in known:
            raise InputError(
                f"{place}: the suite {suite.name} has no problem {row['task_id']!r}",
                field="task_id",
                remedy="score the completions with the suite that they were made for",
            )
        found.append(Solution(task_id=row["task_id"], completion=row[answer], is_program=is_program))
    missing = known - {one.task_id for one in found}
    if missing:
        raise InputError(
            f"{len(missing)} of {len(known)} problems have no completion, for example {min(missing)}",
            field=str(path),
            remedy="add them (an empty completion counts as a failure)",
        )
    return found


def check(
    suite: Suite,
    completions: Sequence[Solution],
    limits: sandbox.Limits = sandbox.DEFAULT_LIMITS,
    workers: int | None = None,
    *,
    allow_weak: bool = False,
) -> Iterator[sandbox.Verdict]:
    """Run every completion; verdicts come in their order.

    Raises:
        StageError: the sandbox is below its floor.
        KeyError: a completion of no problem of the suite.
    """
    problems = {problem.task_id: problem for problem in suite.problems}
    programs = (
        sandbox.Program(
            id=one.task_id,
            source=one.completion if one.is_program else problems[one.task_id].program(one.completion),
            test=problems[one.task_id].test,
            entry_point=problems[one.task_id].entry_point,
            prelude=problems[one.task_id].prelude,
        )
        for one in completions
    )
    return sandbox.run(programs, limits, workers, allow_weak=allow_weak)


def score(verdicts: Sequence[sandbox.Verdict], ks: Sequence[int]) -> Scores:
    """Count verdicts.

    Raises:
        InputError: a k below 1, or larger than the number of completions of a problem.
    """
    made, correct = Counter(one.id for one in verdicts), Counter(one.id for one in verdicts if one.passed)
    fewest = min(made.values(), default=0)
    check_tries(ks, fewest)
    return Scores(
        pass_at={k: sum(pass_at_k(made[task], correct[task], k) for task in made) / len(made) for k in ks},
        problems=len(made),
        completions=len(verdicts),
        stopped=sum(one.stopped for one in verdicts),
        outcomes=dict(Counter(one.outcome for one in verdicts).most_common()),
        verdicts=tuple(verdicts),
    )


def check_tries(ks: Sequence[int], fewest: int) -> None:
    """Refuse a pass@k that cannot be told from `fewest` completions of a problem.

    Raises:
        InputError: a k below 1 or above `fewest`.
    """
    for k in ks:
        if not 1 <= k <= fewest:
            raise InputError(
                f"pass@{k} cannot be told: the fewest completions of a problem are {fewest}",
                field="--k",
                remedy=f"use k from 1 to {fewest}",
            )


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from `n` completions of which `c` passed (Chen et al. 2021): 1 − ∏(1 − k/i) over
    i from n − c + 1 to n."""
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))
