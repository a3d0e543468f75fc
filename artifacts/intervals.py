"""What an interval and a margin say."""

from __future__ import annotations

from typing import Literal

Better = Literal["lower", "higher"]
Verdict = Literal["learned", "kept", "unclear", "worse"]


def improvement(low: float, high: float, better: Better) -> tuple[float, float]:
    """The interval of a difference turned so that above zero is better."""
    return (-high, -low) if better == "lower" else (low, high)


def verdict(
    low: float | None, high: float | None, *, better: Better, margin: float, floor: float | None = None
) -> Verdict:
    """`learned`: the interval of the improvement lies above zero; `kept`: it and the floor lie above −margin; `worse`:
    below zero and not kept; else, or without an interval, `unclear`.

    A 95 % interval leaves 2.5 % on either side: a model that is worse by the margin or more is called `kept` in
    about 2.5 of 100 cases (simulated: docs/evaluation.md).

    Args:
        low, high: the 95 % interval of tuned − base.
        margin: the loss that counts as none, in the unit of the figure, at least 0.
        floor: of outcomes, the floor that `tasks.statistics` gives them.
    """
    if margin < 0:
        raise ValueError(f"a margin is at least 0, not {margin}")
    if low is None or high is None:
        return "unclear"
    least, most = improvement(low, high, better)
    if least > 0:
        return "learned"
    if min(least, least if floor is None else floor) > -margin:
        return "kept"
    return "worse" if most < 0 else "unclear"
