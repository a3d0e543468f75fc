"""Intervals cover what they say, under an effect and under none."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from artifacts.errors import InputError
from tasks.statistics import FEWEST_CLUSTERS, Difference, paired_difference
from tasks.statistics.student import student_quantile

Study = tuple[list[float], list[float], list[str], list[float]]


def losses(rng: np.random.Generator, repos: int, effect: float) -> Study:
    """Chunks of repositories that differ in level, effect and size."""
    sizes = np.maximum(1, rng.lognormal(1.5, 1.0, repos).astype(int))
    clusters = np.repeat(np.arange(repos), sizes)
    base = rng.normal(2, 0.5, repos)[clusters] + rng.normal(0, 0.3, len(clusters))
    change = rng.normal(effect, 0.02, repos)[clusters] + rng.normal(0, 0.03, len(clusters))
    weights = rng.integers(50, 300, len(clusters)).astype(float)
    return base.tolist(), (base + change).tolist(), clusters.astype(str).tolist(), weights.tolist()


def outcomes(rng: np.random.Generator, problems: int, lost: float, gained: float) -> Study:
    """Passed or failed, a cluster each."""
    change = rng.choice([-1.0, 0.0, 1.0], problems, p=[lost, 1 - lost - gained, gained])
    base = np.where(change == 0, rng.integers(0, 2, problems), change < 0).astype(float)
    return base.tolist(), (base + change).tolist(), [str(number) for number in range(problems)], [1.0] * problems


def compare(study: Study, seed: int = 0, draws: int = 2000) -> Difference:
    *values, weights = study
    return paired_difference(*values, weights=weights, seed=seed, draws=draws)


def ends(found: Difference) -> tuple[float, float]:
    assert found.low is not None and found.high is not None
    return found.low, found.high


def covered(studies: list[Study], truth: float) -> float:
    intervals = [ends(compare(study, seed)) for seed, study in enumerate(studies)]
    return sum(low <= truth <= high for low, high in intervals) / len(studies)


@pytest.mark.parametrize(("repos", "effect"), [(8, 0.0), (12, -0.05), (40, 0.0)])
def test_intervals_of_losses_cover_95_percent(repos: int, effect: float) -> None:
    rng = np.random.default_rng(7)
    # 1,000 draws of a probability of 0.95 lie within 0.932 and 0.968 in 99 of 100 tests
    assert covered([losses(rng, repos, effect) for _ in range(1000)], effect) == pytest.approx(0.95, abs=0.018)


def test_intervals_of_outcomes_cover_95_percent() -> None:
    rng = np.random.default_rng(8)
    studies = [outcomes(rng, 164, 0.15, 0.15) for _ in range(400)]
    assert covered(studies, 0.0) == pytest.approx(0.95, abs=0.028)


def test_few_items_that_differ_do_not_make_a_false_certainty() -> None:
    rng = np.random.default_rng(9)
    studies = [outcomes(rng, 60, 0.03, 0.0) for _ in range(400)]  # in one of six, nothing differs
    assert covered(studies, -0.03) >= 0.925
    same = [1.0, 0.0] * 30, [1.0, 0.0] * 30, [str(number) for number in range(60)], [1.0] * 60
    bound = 1.959964**2 / (60 + 1.959964**2)
    assert ends(compare(same)) == pytest.approx((-bound, bound))


@pytest.mark.parametrize("problems", [8, 40, 164])
def test_zero_is_left_out_as_a_mid_p_test_rejects_it(problems: int) -> None:
    def lowest(gained: int, lost: int) -> float:
        base = [0.0] * gained + [1.0] * lost + [1.0] * (problems - gained - lost)
        tuned = [1.0] * gained + [0.0] * lost + [1.0] * (problems - gained - lost)
        return ends(compare((base, tuned, [str(number) for number in range(problems)], [1.0] * problems)))[0]

    # Mid-p of the exact McNemar test, twice: the chance of fewer lost ones and half that of as many.
    assert lowest(4, 0) == 0  # 6.2 %
    assert lowest(5, 0) > 0  # 3.1 %
    assert lowest(6, 1) < 0  # 7.0 %
    assert lowest(7, 1) > 0  # 3.9 %


def test_how_often_zero_is_left_out_by_chance_depends_on_how_many_differ() -> None:
    """Without a difference, of thirteen problems of which so many differ; all subsets, so nothing is left to draws."""

    def left_out(gained: int, lost: int) -> bool:
        base = [0.0] * gained + [1.0] * (13 - gained)
        tuned = [1.0] * gained + [0.0] * lost + [1.0] * (13 - gained - lost)
        return ends(compare((base, tuned, [str(number) for number in range(13)], [1.0] * 13)))[0] > 0

    shares = {
        differing: 2
        * sum(comb(differing, lost) for lost in range(differing) if left_out(differing - lost, lost))
        / 2**differing
        for differing in range(3, 14)
    }
    percent = {3: 0, 4: 0, 5: 6.2, 6: 3.1, 7: 1.6, 8: 7.0, 9: 3.9, 10: 2.1, 11: 6.5, 12: 3.9, 13: 2.2}
    assert {differing: 100 * share for differing, share in shares.items()} == pytest.approx(percent, abs=0.06)


def clustered(rng: np.random.Generator) -> Study:
    """One outcome in twenty is lost, in some repositories many and in most none."""
    sizes = np.clip(rng.lognormal(1.5, 1.0, 20).astype(int), 1, 60)
    clusters = np.repeat(np.arange(20), sizes)
    base = (rng.random(len(clusters)) < rng.beta(0.05 * 9, 0.95 * 9, 20)[clusters]).astype(float)
    return base.tolist(), [0.0] * len(base), clusters.astype(str).tolist(), [1.0] * len(base)


def test_what_is_lost_in_a_few_clusters_is_not_called_kept() -> None:
    rng = np.random.default_rng(5)
    found = [compare(clustered(rng), seed) for seed in range(600)]
    bounds = [one.bound for one in found if one.bound is not None]
    assert len(bounds) == 600 and all(one.bound <= ends(one)[0] for one in found if one.bound is not None)
    by_interval = sum(ends(one)[0] > -0.05 for one in found) / 600
    assert sum(bound > -0.05 for bound in bounds) / 600 <= 0.01 < 0.03 < by_interval


@pytest.mark.parametrize(
    ("each", "design_effect", "missed"),
    [(1, 1.0, 0.5), (2, 1 + (2 - 1) * 0.05, 1.0), (5, 1 + (5 - 1) * 0.05, 1.0)],
)
def test_the_bound_stands_as_if_one_more_had_been_lost(each: int, design_effect: float, missed: float) -> None:
    """Nothing differs among 40 items, so many of a cluster: only the correction takes the bound below the interval."""
    outcomes = [1.0, 0.0] * 20
    found = compare((outcomes, outcomes, [str(number // each) for number in range(40)], [1.0] * 40))
    independent = 40 / design_effect
    shift = missed / independent
    assert found.bound is not None and found.bound < -shift
    room = 1.959964**2 * abs(found.bound) * (1 - abs(found.bound)) / independent
    assert (found.bound + shift) ** 2 == pytest.approx(room)


@pytest.mark.parametrize(("clusters", "least", "most"), [(8, 0.1, 0.055), (20, 0.075, 0.035), (40, 0.075, 0.035)])
def test_a_loss_carried_by_a_few_clusters_is_rarely_called_kept(clusters: int, least: float, most: float) -> None:
    """Log-normal effects on repositories of eight chunks, mean 0.05 nats: worse by the margin."""
    rng, by_interval, by_bound = np.random.default_rng(6), 0, 0
    names = [str(number) for number in range(clusters) for _ in range(8)]
    for seed in range(600):
        effects = np.repeat((rng.lognormal(size=clusters) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)), 8)
        tuned = 2.05 + 0.02 * (effects + rng.standard_normal(8 * clusters))
        found = paired_difference([2.0] * len(tuned), tuned.tolist(), names, better="lower", seed=seed, draws=2000)
        assert found.bound is not None
        by_interval += ends(found)[1] < 0.05
        by_bound += found.bound < 0.05
    assert by_bound / 600 <= most < least < by_interval / 600


@pytest.mark.parametrize("clusters", [10, 30])
def test_the_bound_is_the_end_with_two_more_clusters_like_the_worst(clusters: int) -> None:
    change = np.random.default_rng(3).normal(0, 0.03, clusters)
    names = [str(number) for number in range(clusters)]
    worse = paired_difference([2.0] * clusters, (2 + change).tolist(), names, better="lower")
    assert worse.bound == pytest.approx(ends(worse)[1] + 2 * (change.max() - change.mean()) / clusters)
    turned = paired_difference([2.0] * clusters, (2 - change).tolist(), names, better="higher")
    assert turned.bound == pytest.approx(ends(turned)[0] - 2 * (change.max() - change.mean()) / clusters)


def test_a_known_effect_is_found() -> None:
    low, high = ends(compare(losses(np.random.default_rng(1), 40, -0.05)))
    assert -0.08 < low < high < 0


def test_the_minimum_detectable_effect_is_found_in_80_of_100_cases() -> None:
    rng = np.random.default_rng(2)
    clusters = [str(number) for number in range(20)]

    def study(effect: float) -> Difference:
        return compare(([2.0] * 20, (2 + rng.normal(effect, 0.03, 20)).tolist(), clusters, [1.0] * 20))

    smallest = float(np.mean([study(0.0).minimum_detectable_effect or 0 for _ in range(200)]))
    found = sum(ends(study(smallest))[0] > 0 for _ in range(500)) / 500
    assert found == pytest.approx(0.8, abs=0.055)


def test_repositories_count_by_what_they_hold() -> None:
    found = paired_difference([1.0, 3.0, 1.0], [0.0, 0.0, 2.0], ["a", "a", "b"], weights=[1.0, 1.0, 8.0])
    assert (found.base, found.tuned, found.estimate) == pytest.approx((1.2, 1.6, 0.4))


def test_items_of_one_repository_are_no_independent_witnesses() -> None:
    change = np.repeat(np.random.default_rng(3).normal(0, 1, 10), 50).tolist()
    together = ends(compare(([0.0] * 500, change, [f"r{n // 50}" for n in range(500)], [1.0] * 500)))
    apart = ends(compare(([0.0] * 500, change, [f"r{n}" for n in range(500)], [1.0] * 500)))
    assert together[1] - together[0] > 4 * (apart[1] - apart[0])


def test_draws_are_seeded_and_few_clusters_need_none() -> None:
    many, few = losses(np.random.default_rng(1), 20, 0.0), losses(np.random.default_rng(1), 10, 0.0)
    assert compare(many, 5) == compare(many, 5) != compare(many, 6)
    assert compare(few, 5) == compare(few, 6)


@pytest.mark.parametrize("repos", [1, FEWEST_CLUSTERS - 1])
def test_too_few_repositories_have_no_interval(repos: int) -> None:
    found = compare(losses(np.random.default_rng(1), repos, 0.0))
    assert (found.low, found.high, found.minimum_detectable_effect, found.clusters) == (None, None, None, repos)


def test_an_empty_held_out_set_is_said() -> None:
    with pytest.raises(InputError) as refused:
        paired_difference([], [], [])
    assert refused.value.field == "sampling.held_out"


@pytest.mark.parametrize(("freedom", "expected"), [(5, 2.570582), (11, 2.200985), (37, 2.026192), (200, 1.971896)])
def test_quantiles_of_student(freedom: int, expected: float) -> None:
    """From printed tables of the t distribution, 97.5 %."""
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-5)
