"""The difference of two figures measured on the same items, with an interval, clustered.

Items of one repository, or of one parent problem, are alike, so clusters are what is drawn, all their items together.
The figure of a draw is a ratio of sums (loss per token, hits per item): a cluster counts by what it holds.

A draw takes each cluster with probability ½, and the interval lies between the quantiles of the draws' differences:
Hartigan's typical values (1969, “Using subsample values as typical values”, JASA 64), a bootstrap whose weights are 0
or 2. When base and tuned may be exchanged, the contribution of every cluster to the difference is symmetric, and the
interval then covers exactly what it says, whatever the number of clusters and their sizes: that a true difference lies
outside is the event that a sign-flip test rejects it. The usual intervals (percentile, BCa, bootstrap-t, t with cluster
errors) are exact only for many clusters of like size; `bench/statistics.py` compares them.

With up to 13 clusters all subsets are used and nothing is drawn. Below six clusters there is no interval: even when all
of five agree, the chance of that under no difference is 2 · 2⁻⁵ = 6 %, so nothing can be said at 95 %.

Outcomes that are 0 or 1 take few different values, so the draws tie. Half of a tie lies below: zero is left out when a
mid-p McNemar test rejects it (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91), from five
differing clusters on, if they agree. How often that is by chance depends on how many differ: in 2 to 7 of 100 cases
with five to thirteen (`tests/tasks/statistics/test_paired.py`).

Where few items differ, the draws differ little as well, in the extreme not at all, though a difference as rare as that
may only have been missed. No difference of 0/1 outcomes with mean θ has a variance below |θ|(1 − |θ|), so the interval
also holds every θ that this variance cannot rule out: with no item that differs among n, up to z²/(n + z²), as in
Tango's score interval (1998, Statistics in Medicine 17).

That nothing was lost must be claimed more carefully still: a cluster that lost much at once is rare, and where none was
drawn the others say that it does not exist. So there is a `bound` as well, beyond the interval's end on the side of
worse, which non-inferiority is judged by. For losses it is that end if two more clusters like the worst had been drawn:
where a few clusters are much worse than the rest, none of the intervals named above is wide enough on that side, not
even the widest of them all (`bench/statistics.py`). For outcomes it is the lower end when items are taken to be alike
within clusters at least a little (`LEAST_ICC`), and when one more of the items that count as independent had been lost;
half of one, the usual correction for continuity, where no item shares its cluster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from artifacts.errors import InputError
from artifacts.intervals import Better
from tasks.statistics.student import student_quantile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.80
FEWEST_CLUSTERS = 6
ALL_SUBSETS_UP_TO = 13
DRAWS = 10_000
MORE_LIKE_THE_WORST = 2
"""Clusters that losses are taken to have missed. With one, a model worse by the margin passes twice as often as it
should where a few clusters are much worse; with three, twenty clusters show little."""
LEAST_ICC = 0.05
"""Intraclass correlation that outcomes are taken to have at least: a few differing items cannot tell it from none."""


@dataclass(frozen=True)
class Difference:
    """Both figures and what lies between them."""

    base: float
    tuned: float
    estimate: float
    """tuned − base."""
    low: float | None
    """Lower end of the 95 % interval of the difference; None, as `high`, with too few clusters."""
    high: float | None
    minimum_detectable_effect: float | None
    """The true difference that this comparison would have shown (interval without zero) in 80 of 100 cases."""
    items: int
    clusters: int
    bound: float | None = None
    """The most that may have been lost: at most as high as `low` where higher is better, else at least as high as
    `high`. Non-inferiority is judged by it."""


def paired_difference(
    base: Sequence[float],
    tuned: Sequence[float],
    clusters: Sequence[str],
    *,
    better: Better = "higher",
    weights: Sequence[float] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Difference:
    """Weighted means of both sides and the 95 % interval of tuned − base.

    Args:
        base, tuned: a value per item, in the same order.
        clusters: what each item belongs to (a repository, a parent problem).
        better: on which side of the interval its bound lies. Outcomes that are 0 or 1 are better when they are 1.
        weights: what each item counts (the tokens of a mean loss per token); 1 each when left out.
        seed: of the draws. The same seed draws the same clusters.
        draws: how many.

    Raises:
        InputError: there is nothing to compare.
        ValueError: lengths differ, or a value is not finite.
    """
    import numpy as np

    sides = np.array([base, tuned], dtype=float)
    counts = np.ones(sides.shape[1]) if weights is None else np.asarray(weights, dtype=float)
    if counts.shape != (len(clusters),) or sides.shape[1] != len(clusters):
        raise ValueError(f"{sides.shape[1]} values, {counts.size} weights and {len(clusters)} clusters do not pair")
    if not counts.sum() > 0:
        raise InputError(
            "there is no held-out item to compare base and tuned on",
            field="sampling.held_out",
            remedy="hold more repositories out, or ask for more items in evaluation",
        )
    if not np.isfinite(sides).all():
        raise ValueError("a value is not finite")
    change = sides[1] - sides[0]
    names, inverse = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.array([np.bincount(inverse, part, len(names)) for part in (change * counts, counts)], dtype=float)
    estimate = float(sums[0].sum() / sums[1].sum())
    low = high = bound = detectable = None
    if len(names) >= FEWEST_CLUSTERS:
        low, high = _typical_values(sums, seed, draws)
        if np.isin(sides, (0.0, 1.0)).all():
            missed = 1.0 if len(names) < len(clusters) else 0.5
            bound = _bound_of_outcomes(low, estimate, _independent_items(change, counts, sums, LEAST_ICC), missed)
            rare_low, rare_high = _rare_differences(estimate, _independent_items(change, counts, sums))
            low, high = min(low, rare_low), max(high, rare_high)
        else:
            moved = MORE_LIKE_THE_WORST * (sums[0] - estimate * sums[1]) / sums[1].sum()  # by each cluster, in the unit
            bound = low + float(moved.min()) if better == "higher" else high + float(moved.max())
        detectable = _detectable((high - low) / 2, len(names))
    before, after = (float(value) for value in sides @ counts / counts.sum())
    return Difference(before, after, estimate, low, high, detectable, len(clusters), len(names), bound)


def _typical_values(sums: Floats, seed: int, draws: int) -> tuple[float, float]:
    """The quantiles of the differences of random halves of the clusters. `sums`: 2 × clusters, differences and
    weights."""
    import numpy as np

    ratios = np.concatenate([chosen[0] / chosen[1] for chosen in _subsets(sums, seed, draws)])
    # Differences of 0/1 outcomes tie, and half of a tie lies below (mid-p): quantiles of mid-ranks.
    values, ties = np.unique(np.round(ratios, 12), return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2) / (len(ratios) + 1)
    low, high = np.interp([(1 - LEVEL) / 2, (1 + LEVEL) / 2], ranks, values)
    return float(low), float(high)


def _subsets(sums: Floats, seed: int, draws: int) -> list[Floats]:
    """Sums over subsets of the clusters that weigh something, 2 × subsets each."""
    import numpy as np

    count = sums.shape[1]
    if count <= ALL_SUBSETS_UP_TO:
        numbers = np.arange(1, 2**count)
        blocks = [((numbers[:, None] >> np.arange(count)) & 1).astype(float)]
    else:
        generator = np.random.default_rng(seed)
        block = max(1, min(draws, 4_000_000 // count))  # bounds the memory with many clusters
        blocks = [generator.integers(0, 2, (block, count)).astype(float) for _ in range(math.ceil(draws / block))]
    chosen = [sums @ block.T for block in blocks]
    return [part[:, part[1] > 0] for part in chosen]


def _independent_items(change: Floats, counts: Floats, sums: Floats, least_icc: float = 0.0) -> float:
    """As how many independent items these count: their number (Kish 1965, for weights) by the design effect, which is
    the variance between clusters over that of independent items, and at least what `least_icc` makes of their sizes."""
    import numpy as np

    count, estimate = sums.shape[1], sums[0].sum() / sums[1].sum()
    between = count / (count - 1) * float(((sums[0] - estimate * sums[1]) ** 2).sum())
    apart = float(((counts * (change - estimate)) ** 2).sum())
    squares = float(np.square(counts).sum())
    least = 1 + (float(np.square(sums[1]).sum()) / squares - 1) * least_icc
    return float(counts.sum() ** 2 / squares) / max(least, between / apart if apart else 1.0)


def _bound_of_outcomes(low: float, estimate: float, items: float, missed: float) -> float:
    """The lower end when so many more of the items that count as independent had been lost."""
    shift = missed / items
    return min(low - shift, _rare_differences(estimate - shift, items)[0])


def _rare_differences(estimate: float, items: float) -> tuple[float, float]:
    """All θ with (estimate − θ)² ≤ z²·|θ|(1 − |θ|) / items."""
    room = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2 / items

    def lowest(middle: float) -> float:
        for sign in (-1, 1):  # θ = sign · x with x > 0: a quadratic inequality in x
            half = sign * middle + room / 2
            root = half * half - (1 + room) * middle * middle
            if root >= 0 and half > 0:
                return sign * (half - sign * math.sqrt(root)) / (1 + room)
        return middle

    return lowest(estimate), -lowest(-estimate)


def _detectable(half_width: float, clusters: int) -> float:
    """(t(1 − α/2) + t(power)) standard errors, k − 1 degrees of freedom (Bloom 1995, “Minimum detectable effects”,
    Evaluation Review 19), the standard error being what the interval's width says."""
    outer = student_quantile((1 + LEVEL) / 2, clusters - 1)
    return half_width * (1 + student_quantile(POWER, clusters - 1) / outer)
