"""Functional suites: from verdicts on programs to how many problems each model solved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from artifacts.schema import FunctionalResult, Share
from tasks.statistics import mcnemar, wilson

Row = Mapping[str, Any]
Verdicts = Mapping[tuple[int, str], Row]
"""By item and side."""
PASS = "pass"
"""What the score is called."""


def by_item(rows: Iterable[Row]) -> Verdicts:
    """The rows of `verdicts.parquet` (`Executions`) for looking up."""
    return {(row["item"], row["side"]): row for row in rows}


def scores(completions: Iterable[Row], verdicts: Verdicts) -> list[dict[str, Any]]:
    """A row per problem, as `scoring.score` makes them: 1 for a program that passed."""
    names = ("domain", "suite", "item", "repo", "language")
    return [
        {
            **{name: row[name] for name in names},
            "score": PASS,
            **{side: _passed(verdicts.get((row["item"], side))) for side in ("base", "again", "tuned")},
        }
        for row in completions
        if (row["item"], "base") in verdicts
    ]


def results(found: Sequence[Row], verdicts: Verdicts) -> tuple[FunctionalResult, ...]:
    """Suite by suite. `found`: what `scores` made."""
    return tuple(
        _result(suite, [row for row in found if row["suite"] == suite], verdicts)
        for suite in dict.fromkeys(row["suite"] for row in found)
    )


def _result(suite: str, rows: Sequence[Row], verdicts: Verdicts) -> FunctionalResult:
    test = mcnemar([row["base"] for row in rows], [row["tuned"] for row in rows])
    base, tuned = (_share([verdicts[row["item"], side] for row in rows]) for side in ("base", "tuned"))
    return FunctionalResult(
        suite=suite, problems=len(rows), base=base, tuned=tuned, gained=test.gained, lost=test.lost, p=test.p
    )


def _share(told: Sequence[Row]) -> Share:
    passed = sum(row["passed"] for row in told)
    low, high = wilson(passed, len(told))
    reasons = sorted(Counter(row["reason"] for row in told).items(), key=lambda one: (one[0] != "passed", -one[1], one))
    return Share(passed=passed, low=low, high=high, reasons=dict(reasons))


def _passed(verdict: Row | None) -> float | None:
    return None if verdict is None else float(verdict["passed"])
