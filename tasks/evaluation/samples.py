"""Which completions a person is shown: the best, the worst, and some that chance chose."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from artifacts.schema import Completion
from tasks.evaluation.functional import Verdicts
from tasks.evaluation.scoring import SCORES, edit_similarity, exact_match

Row = Mapping[str, Any]
Reason = Literal["best", "worst", "random"]
NOTHING = (0.0, 0.0)
"""What was gained where both answers are as good."""


def choose(completions: Sequence[Row], verdicts: Verdicts, count: int, rng: random.Random) -> tuple[Completion, ...]:
    """A third those that the tuned model gained most on, a third those it lost most on, the rest at random; then as
    many programs, chosen the same way.

    Best and worst by the difference of edit similarity and, where that ties, by who is exact; programs by who passed;
    and only where there is one: they show what can happen, and the random ones, of each suite and domain in turn, what
    does.
    """
    programs = [row for row in completions if (row["item"], "base") in verdicts]
    gaps = [row for row in completions if row["suite"] in SCORES]
    return (*_choose(gaps, verdicts, count, rng), *_choose(programs, verdicts, count, rng))


def _choose(completions: Sequence[Row], verdicts: Verdicts, count: int, rng: random.Random) -> tuple[Completion, ...]:
    shown = [_completion(row, verdicts) for row in completions]
    order = list(range(len(shown)))
    rng.shuffle(order)
    gains = {index: shown[index][1] for index in order}
    third = count // 3
    ranked = sorted(order, key=gains.__getitem__)  # what ties stays in random order
    best = [index for index in reversed(ranked) if gains[index] > NOTHING][:third]
    worst = [index for index in ranked if gains[index] < NOTHING][:third]
    rest = _in_turn([index for index in order if index not in {*best, *worst}], completions)
    rest = rest[: count - len(best) - len(worst)]
    reasons: dict[Reason, list[int]] = {"best": best, "worst": worst, "random": rest}
    return tuple(
        shown[index][0].model_copy(update={"chosen": why}) for why, indices in reasons.items() for index in indices
    )


def _in_turn(order: list[int], completions: Sequence[Row]) -> list[int]:
    """One of each suite and domain in turn, in the given order."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for index in order:
        kind = (completions[index]["suite"], completions[index]["domain"])
        seen[kind] = seen.get(kind, 0) + 1
        turns.append((seen[kind], index))
    return [index for _, index in sorted(turns, key=lambda turn: turn[0])]


def _completion(row: Row, verdicts: Verdicts) -> tuple[Completion, tuple[float, float]]:
    """A completion with what the tuned model gained on it: similarity, and exactness (indentation included)."""
    names = ("domain", "repo", "path", "prompt", "suffix", "truth", "base", "tuned")
    told = [verdicts.get((row["item"], side)) for side in ("base", "tuned")]
    base, tuned = (
        edit_similarity(row[side], row["truth"]) if verdict is None else float(verdict["passed"])
        for side, verdict in zip(("base", "tuned"), told, strict=True)
    )
    reasons = {
        f"{side}_reason": verdict["reason"] for side, verdict in zip(("base", "tuned"), told, strict=True) if verdict
    }
    texts = {name: row[name] for name in names}
    exact = exact_match(row["tuned"], row["truth"]) - exact_match(row["base"], row["truth"])
    made = Completion(kind=row["suite"], base_score=base, tuned_score=tuned, **reasons, **texts)
    return made, (tuned - base, 0.0 if any(told) else exact)
