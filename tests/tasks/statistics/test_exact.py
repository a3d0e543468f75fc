"""Figures of small comparisons, against the same computed in another way."""

from __future__ import annotations

from itertools import pairwise, product
from math import hypot, sqrt

import numpy as np
import pytest

from artifacts.errors import InputError
from tasks.statistics import Difference, mcnemar, paired, paired_difference, wilson
from tasks.statistics.student import student_quantile
from tasks.statistics.unpaired import contrast

BASE = [2.0, 2.1, 1.9, 2.4, 2.2, 2.0, 1.7, 2.5]
TUNED = [1.9, 2.2, 1.7, 2.3, 2.1, 1.6, 1.8, 2.1]
CLUSTERS = ["c", "a", "b", "b", "d", "e", "f", "f"]
WEIGHTS = [10.0, 20.0, 30.0, 5.0, 15.0, 25.0, 10.0, 40.0]
Z = 1.959963984540054


def quantile(values: list[float], share: float) -> float:
    """Of values whose rank is the middle of those that are equal, over n + 1; between ranks linear."""
    ordered = [round(value, 12) for value in sorted(values)]
    points = []
    for value in sorted({*ordered}):
        first = ordered.index(value) + 1
        points.append(((first + first + ordered.count(value) - 1) / 2 / (len(ordered) + 1), value))
    for (left, low), (right, high) in pairwise(points):
        if left <= share <= right:
            return low + (high - low) * (share - left) / (right - left)
    return points[0][1] if share < points[0][0] else points[-1][1]


def of_all_subsets(change: list[float], weights: list[float], clusters: list[str]) -> tuple[float, float]:
    """The interval, from every choice of clusters that weighs something."""
    names = sorted({*clusters})
    ratios = []
    for chosen in product([False, True], repeat=len(names)):
        taken = {name for name, yes in zip(names, chosen, strict=True) if yes}
        items = [n for n, name in enumerate(clusters) if name in taken]
        if weight := sum(weights[n] for n in items):
            ratios.append(sum(change[n] * weights[n] for n in items) / weight)
    return quantile(ratios, 0.025), quantile(ratios, 0.975)


def test_a_comparison_of_losses() -> None:
    found = paired_difference(BASE, TUNED, CLUSTERS, weights=WEIGHTS, better="lower")
    change = [after - before for before, after in zip(BASE, TUNED, strict=True)]
    low, high = of_all_subsets(change, WEIGHTS, CLUSTERS)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.base == pytest.approx(np.average(BASE, weights=WEIGHTS))
    assert found.tuned == pytest.approx(np.average(TUNED, weights=WEIGHTS))
    assert found.estimate == pytest.approx(found.tuned - found.base)
    assert (found.items, found.clusters) == (8, 6)
    # t with five degrees of freedom: 2.5706 and 0.9195.
    assert found.minimum_detectable_effect == pytest.approx((high - low) / 2 * (1 + 0.919544 / 2.570582), rel=1e-4)


def test_without_weights_each_item_counts_the_same() -> None:
    assert paired_difference(BASE, TUNED, CLUSTERS) == paired_difference(BASE, TUNED, CLUSTERS, weights=[1.0] * 8)


def test_a_cluster_that_weighs_nothing_alone_is_no_draw() -> None:
    weights = [0.0, *WEIGHTS[1:]]
    found = paired_difference(BASE, TUNED, CLUSTERS, weights=weights)
    change = [after - before for before, after in zip(BASE, TUNED, strict=True)]
    assert (found.low, found.high) == pytest.approx(of_all_subsets(change, weights, CLUSTERS))


@pytest.mark.parametrize("clusters", [13, 14])
def test_up_to_thirteen_clusters_nothing_is_drawn(clusters: int) -> None:
    rng = np.random.default_rng(1)
    change, names = rng.normal(0, 1, clusters).tolist(), [f"{n:02}" for n in range(clusters)]
    one, other = (paired_difference([0.0] * clusters, change, names, seed=seed) for seed in (1, 2))
    assert (one == other) == (clusters == 13)


@pytest.mark.parametrize(("draws", "clusters"), [(1, 20), (2500, 20), (3, 3_000_000)])
def test_there_are_as_many_draws_as_asked_for_and_memory_is_bounded(draws: int, clusters: int) -> None:
    sums = np.ones((2, clusters))
    parts = paired._subsets(sums, 0, draws)
    assert sum(part.shape[1] for part in parts) == draws
    assert max(part.shape[1] for part in parts) * clusters <= 4_000_000


def test_what_is_left_out_has_its_default() -> None:
    base, tuned, names = [0.0] * 20, [n * n / 9 for n in range(20)], [str(n) for n in range(20)]
    assert paired_difference(base, tuned, names) == paired_difference(base, tuned, names, better="higher", seed=0)


def test_only_the_proportions_of_weights_count() -> None:
    small = paired_difference(BASE, TUNED, CLUSTERS, weights=[weight / 1e4 for weight in WEIGHTS])
    whole = paired_difference(BASE, TUNED, CLUSTERS, weights=WEIGHTS)
    assert (small.estimate, small.low, small.high) == pytest.approx((whole.estimate, whole.low, whole.high))


def test_outcomes_may_be_yes_and_no() -> None:
    yes, no, names = [True, False] * 6, [False] * 12, [str(n) for n in range(12)]
    assert paired_difference(yes, no, names) == paired_difference([1.0, 0.0] * 6, [0.0] * 12, names)


# --- outcomes


def in_between(theta: float, estimate: float, items: float) -> float:
    """Zero at an end of the rare differences, negative inside."""
    return (estimate - theta) ** 2 - Z**2 * abs(theta) * (1 - abs(theta)) / items


@pytest.mark.parametrize("estimate", [0.0, 0.03, -0.03, 0.2, -0.2, 0.6, -0.6, 1.0, -1.0])
@pytest.mark.parametrize("items", [5.0, 37.5, 400.0])
def test_rare_differences_are_all_that_the_variance_cannot_rule_out(estimate: float, items: float) -> None:
    low, high = paired._rare_differences(estimate, items)
    grid = np.linspace(-1, 1, 40_001)
    inside = grid[[in_between(theta, estimate, items) <= 0 for theta in grid]]
    if len(inside):
        assert (low, high) == pytest.approx((min(estimate, inside[0]), max(estimate, inside[-1])), abs=1e-4)
    mirrored = paired._rare_differences(-estimate, items)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]))
    assert -1 - 1e-12 <= low <= estimate + 1e-12 and estimate - 1e-12 <= high <= 1 + 1e-12


def test_items_that_count_as_independent() -> None:
    change, counts = np.array([0.0, 1.0, -1.0, 1.0, 0.0]), np.array([1.0, 2.0, 1.0, 1.0, 3.0])
    inverse = np.array([0, 0, 1, 2, 2])
    sums = np.array([np.bincount(inverse, part) for part in (change * counts, counts)])
    mean = (change * counts).sum() / 8
    between = 3 / 2 * sum((total - mean * weight) ** 2 for total, weight in sums.T)
    apart = ((counts * (change - mean)) ** 2).sum()
    kish = 64 / 16
    assert between < apart  # fewer alike within a cluster than by chance count as if there were no clusters
    assert paired._independent_items(change, counts, sums) == pytest.approx(kish)
    assert paired._independent_items(change, counts, sums, 0.5) == pytest.approx(
        kish / (1 + ((9 + 1 + 16) / 16 - 1) * 0.5)
    )
    alike = np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    sums = np.array([np.bincount(inverse, part) for part in (alike * counts, counts)])
    mean = 7 / 8
    effect = 1.5 * sum((total - mean * weight) ** 2 for total, weight in sums.T)
    effect /= ((counts * (alike - mean)) ** 2).sum()
    assert effect > 1 and paired._independent_items(alike, counts, sums) == pytest.approx(kish / effect)


@pytest.mark.parametrize("each", [1, 2])
def test_a_comparison_of_outcomes(each: int) -> None:
    base = [1.0] * 10 + [0.0] * 10
    tuned = [1.0] * 8 + [0.0] * 9 + [1.0] * 3
    clusters = [f"{n // each:02}" for n in range(20)]
    found = paired_difference(base, tuned, clusters, seed=3)
    change = np.array(tuned) - np.array(base)
    counts = np.ones(20)
    inverse = np.array([int(name) for name in clusters])
    sums = np.array([np.bincount(inverse, part).astype(float) for part in (change, counts)])
    drawn = paired._typical_values(sums, 3, 10_000)
    rare = paired._rare_differences(0.05, paired._independent_items(change, counts, sums))
    assert (found.low, found.high) == (min(drawn[0], rare[0]), max(drawn[1], rare[1]))
    careful = paired._independent_items(change, counts, sums, 0.05)
    shift = (0.5 if each == 1 else 1.0) / careful
    below = paired._rare_differences(found.estimate - shift, careful)[0]
    assert found.bound == pytest.approx(min(drawn[0] - shift, below))


# --- what is refused


@pytest.mark.parametrize(
    ("base", "tuned", "clusters", "weights"),
    [
        ([1.0], [1.0], ["a", "b"], None),
        ([1.0, 2.0], [1.0, 2.0], ["a"], [1.0]),
        ([1.0, 2.0], [1.0, 2.0], ["a", "b"], [1.0]),
        ([1.0, 2.0], [1.0, 2.0], ["a"], [1.0, 2.0]),
        ([1.0, float("nan")], [1.0, 2.0], ["a", "b"], None),
        ([1.0, 2.0], [1.0, float("inf")], ["a", "b"], None),
    ],
)
def test_what_does_not_pair_or_is_no_number_is_refused(
    base: list[float], tuned: list[float], clusters: list[str], weights: list[float] | None
) -> None:
    with pytest.raises(ValueError):
        paired_difference(base, tuned, clusters, weights=weights)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 0.5]])
def test_items_that_weigh_nothing_are_nothing_to_compare(weights: list[float]) -> None:
    with pytest.raises(InputError) as refused:
        paired_difference([1.0, 1.0], [1.0, 1.0], ["a", "b"], weights=weights)
    assert refused.value.field == "sampling.held_out" and refused.value.remedy


# --- others


def test_student_and_wilson_to_their_last_digit() -> None:
    assert student_quantile(0.5, 7) == pytest.approx(0, abs=1e-9)
    assert student_quantile(0.8, 5) == pytest.approx(0.919544, abs=1e-5)
    assert student_quantile(0.975, 1) == pytest.approx(12.7062, rel=1e-3)
    share, room = 3 / 40, Z * Z / 40
    spread = Z * sqrt(share * (1 - share) / 40 + room / 160)
    assert wilson(3, 40) == pytest.approx(
        ((share + room / 2 - spread) / (1 + room), (share + room / 2 + spread) / (1 + room))
    )
    assert wilson(0, 0) == (0.0, 1.0) and wilson(0, 9)[0] == 0.0 and wilson(9, 9)[1] == 1.0
    for successes, n in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError):
            wilson(successes, n)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (1, 1, 1.0), (5, 0, 2 / 32), (0, 5, 2 / 32), (1, 6, 16 / 128), (3, 2, 1.0)]
)
def test_mcnemar(gained: int, lost: int, p: float) -> None:
    base, tuned = [0.0] * gained + [1.0] * lost + [1.0, 0.0], [1.0] * gained + [0.0] * lost + [1.0, 0.0]
    found = mcnemar(base, tuned)
    assert (found.gained, found.lost, found.p) == (gained, lost, pytest.approx(p))
    with pytest.raises(ValueError):
        mcnemar(base, [*tuned, 1.0])


def difference(estimate: float, low: float | None, high: float | None, detectable: float | None = 0.3) -> Difference:
    return Difference(1.0, 1.0 + estimate, estimate, low, high, detectable, 10, 7)


def test_a_contrast_of_two_comparisons() -> None:
    found = contrast(difference(0.5, 0.2, 1.0), difference(0.1, -0.3, 0.2, 0.4))
    assert (found.base, found.tuned, found.estimate) == (0.1, 0.5, pytest.approx(0.4))
    assert found.low == pytest.approx(0.4 - hypot(0.3, 0.1)) and found.high == pytest.approx(0.4 + hypot(0.5, 0.4))
    assert found.minimum_detectable_effect == pytest.approx(0.5)
    assert (found.items, found.clusters) == (20, 14)


@pytest.mark.parametrize(("low", "high"), [(None, 1.0), (0.2, None)])
def test_a_contrast_needs_both_intervals(low: float | None, high: float | None) -> None:
    whole, half = difference(0.1, -0.3, 0.2), difference(0.5, low, high)
    for found in (contrast(half, whole), contrast(whole, half)):
        assert found.low is found.high is found.minimum_detectable_effect is None


def test_a_contrast_without_one_detectable_difference_has_the_others() -> None:
    one, other = difference(0.5, 0.2, 1.0, None), difference(0.1, -0.3, 0.2, 0.4)
    assert contrast(one, other).minimum_detectable_effect == contrast(other, one).minimum_detectable_effect == 0.4
