"""What an interval and a margin say."""

from __future__ import annotations

from typing import Literal

Better = Literal["lower", "higher"]
Verdict = Literal["improved", "non-inferior", "inconclusive", "regressed"]


def improvement(low: float, high: float, better: Better) -> tuple[float, float]:
    """The interval of a difference turned so that above zero is better."""
    return (-high, -low) if better == "lower" else (low, high)


def verdict(
    low: float | None,
    high: float | None,
    *,
    better: Better,
    margin: float,
    bound: float | None = None,
    base: float | None = None,
) -> Verdict:
    """`improved`: the interval of the improvement lies above zero; `non-inferior`: it and the bound lie above −margin,
    and the base has the margin to lose; `regressed`: below zero and not non-inferior; else, or without an interval,
    `inconclusive`.

    A 95 % interval leaves 2.5 % on either side. By the bound, a model that is worse by the margin is called
    `non-inferior` in about 1 to 3 of 100 cases, more often where few clusters fail together (docs/evaluation.md).

    Args:
        low, high: the 95 % interval of tuned − base.
        margin: the loss that counts as none, in the unit of the figure, at least 0.
        bound: of the difference, what `tasks.statistics` gives beside the interval: the most that may have been lost.
        base: of a share, the base's: who solves next to nothing has nothing to lose.
    """
    if margin < 0:
        raise ValueError(f"a margin is at least 0, not {margin}")
    if low is None or high is None:
        return "inconclusive"
    least, most = improvement(low, high, better)
    if least > 0:
        return "improved"
    if bound is not None:
        least = min(least, -bound if better == "lower" else bound)
    if least > -margin:
        return "inconclusive" if base is not None and cannot_lose(base, margin) else "non-inferior"
    return "regressed" if most < 0 else "inconclusive"


def cannot_lose(base: float, margin: float) -> bool:
    """Whether a base with this share of successes has too few of them for a loss of the margin to be seen."""
    return margin > 0 and base <= margin
