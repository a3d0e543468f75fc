"""Intervals cover what they say, under an effect and under none."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.intervals import FEWEST_CLUSTERS, Difference, Paired, compare, student_quantile


def study(rng: np.random.Generator, repos: int, effect: float) -> Paired:
    """Loss of 4 chunks of each repository; repositories differ in level, effect and size."""
    clusters = np.repeat([f"r{number}" for number in range(repos)], 4)
    weights = np.repeat(rng.integers(50, 300, repos), 4).astype(float)
    base = np.repeat(rng.normal(2, 0.5, repos), 4) + rng.normal(0, 0.3, 4 * repos)
    change = np.repeat(rng.normal(effect, 0.03, repos), 4) + rng.normal(0, 0.02, 4 * repos)
    return Paired(clusters.tolist(), weights.tolist(), (base * weights).tolist(), ((base + change) * weights).tolist())


@pytest.mark.parametrize(("repos", "effect"), [(12, 0.0), (12, -0.05), (40, 0.0)])
def test_95_percent_intervals_cover_95_percent(repos: int, effect: float) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        found = compare(study(rng, repos, effect), seed=int(rng.integers(1 << 30)), resamples=2000)
        assert found.low is not None and found.high is not None
        hits += found.low <= effect <= found.high
    # 300 draws of a probability of 0.95 lie within 0.92 and 0.98 in 98 of 100 tests
    assert 0.91 <= hits / 300 <= 0.985


def test_a_known_effect_is_found() -> None:
    found = compare(study(np.random.default_rng(1), 40, -0.05), seed=0, resamples=2000)
    assert found.low is not None and found.high is not None
    assert -0.08 < found.low < found.tuned - found.base < found.high < 0


def test_repositories_count_by_what_they_hold() -> None:
    paired = Paired(["a", "a", "b"], [1.0, 1.0, 8.0], [1.0, 3.0, 8.0], [0.0, 0.0, 16.0])
    found = compare(paired, seed=0, resamples=2000)
    assert (found.base, found.tuned) == (12 / 10, 16 / 10)


def test_items_of_one_repository_are_no_independent_witnesses() -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(0, 1, 10)
    change = np.repeat(level, 50)
    clustered = Paired([f"r{n // 50}" for n in range(500)], [1.0] * 500, [0.0] * 500, change.tolist())
    apart = Paired([f"r{n}" for n in range(500)], [1.0] * 500, [0.0] * 500, change.tolist())
    assert _width(clustered) > 4 * _width(apart)


def _width(paired: Paired) -> float:
    found = compare(paired, seed=0, resamples=2000)
    assert found.low is not None and found.high is not None
    return found.high - found.low


def test_draws_are_seeded() -> None:
    paired = study(np.random.default_rng(1), 10, 0.0)
    assert compare(paired, seed=5, resamples=2000) == compare(paired, seed=5, resamples=2000)
    assert compare(paired, seed=5, resamples=2000) != compare(paired, seed=6, resamples=2000)


@pytest.mark.parametrize("repos", [1, FEWEST_CLUSTERS - 1])
def test_too_few_repositories_have_no_interval(repos: int) -> None:
    found = compare(study(np.random.default_rng(1), repos, 0.0), seed=0, resamples=2000)
    assert isinstance(found, Difference) and (found.low, found.high) == (None, None) and found.clusters == repos


def test_the_transform_comes_before_the_difference() -> None:
    paired = Paired(["a", "b"], [10.0, 10.0], [10.0, 30.0], [5.0, 25.0])
    found = compare(paired, seed=0, resamples=2000, transform=np.exp)
    assert (found.base, found.tuned) == pytest.approx((np.exp(2.0), np.exp(1.5)))


@pytest.mark.parametrize(("freedom", "expected"), [(5, 2.570582), (11, 2.200985), (37, 2.026192), (200, 1.971896)])
def test_quantiles_of_student(freedom: int, expected: float) -> None:
    """From printed tables of the t distribution, 97.5 %."""
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-5)
