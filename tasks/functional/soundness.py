"""Which problems of a suite say something of a model: their own solution passes, a program that does nothing fails."""

from __future__ import annotations

from tasks import sandbox
from tasks.functional.problems import Suite
from tasks.functional.scoring import Solution, check

_STUB = "def {name}(*given, **named):\n    return None\n"


def unsound(
    suite: Suite,
    limits: sandbox.Limits = sandbox.DEFAULT_LIMITS,
    workers: int | None = None,
    *,
    allow_weak: bool = False,
) -> dict[str, str]:
    """Why problems are to be left out, by their ids. Raises as `check`."""
    trials = []
    for problem in suite.problems:
        if problem.canonical_solution:
            trials.append(Solution(task_id=problem.task_id, completion=problem.canonical_solution))
        stub = _STUB.format(name=problem.entry_point)
        trials.append(Solution(task_id=problem.task_id, completion=stub, is_program=True))
    verdicts = check(suite, trials, limits, workers, allow_weak=allow_weak)
    reasons: dict[str, str] = {}
    for trial, verdict in zip(trials, verdicts, strict=True):
        if trial.is_program and verdict.passed:
            reasons[trial.task_id] = "a program that does nothing passes its test"
        elif not trial.is_program and not verdict.passed:
            reasons[trial.task_id] = f"its own solution does not pass ({verdict.outcome}: {verdict.detail:.100})"
    return reasons


def in_words(suite: str, reasons: dict[str, str]) -> str:
    """What was left out, in a sentence."""
    named = "; ".join(f"{task}: {why}" for task, why in list(reasons.items())[:5])
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    count = f"{len(reasons)} problem{'s' if len(reasons) > 1 else ''}"
    return f"{count} of {suite} left out, because they say nothing of a model: {named}{more}."
