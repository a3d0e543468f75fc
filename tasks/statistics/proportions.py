"""One proportion with its interval, and two paired proportions tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tasks.statistics.paired import LEVEL


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927, JASA 22); [0, 1] when there was no trial."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, room = successes / n, z * z / n
    middle = share + room / 2
    spread = z * math.sqrt(share * (1 - share) / n + room / (4 * n))
    return max(0.0, (middle - spread) / (1 + room)), min(1.0, (middle + spread) / (1 + room))


@dataclass(frozen=True)
class McNemar:
    """Two paired proportions, by the items on which they differ."""

    gained: int
    """Items that only the tuned model has."""
    lost: int
    """Items that only the base has."""
    p: float
    """The chance of a split at least as uneven when both are equally likely."""


def mcnemar(base: Sequence[float], tuned: Sequence[float]) -> McNemar:
    """The exact, two-sided test (binomial, with probability ½) of outcomes that are 0 or 1. It knows no clusters."""
    pairs = list(zip(base, tuned, strict=True))
    if not {value for pair in pairs for value in pair} <= {0, 1}:
        raise ValueError("McNemar's test is for outcomes that are 0 or 1")
    gained = sum(one < other for one, other in pairs)
    lost = sum(one > other for one, other in pairs)
    differ = gained + lost
    tail = sum(math.comb(differ, count) for count in range(min(gained, lost) + 1))
    return McNemar(gained, lost, min(1.0, 2 * tail / 2**differ))
