"""The difference of two differences covers what its interval says, and claims no more than it should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.statistics import FEWEST_CLUSTERS, Difference, contrast
from tests.tasks.statistics.test_paired import compare, ends, losses


def found(low: float | None, estimate: float, high: float | None) -> Difference:
    detectable = None if low is None or high is None else (high - low) / 2
    return Difference(2.0, 2.0 + estimate, estimate, low, high, detectable, 100, 20)


def test_errors_of_independent_estimates_add_as_squares() -> None:
    between = contrast(found(-0.10, -0.07, -0.05), found(-0.03, -0.01, 0.03))
    assert (between.base, between.tuned, between.estimate) == pytest.approx((-0.01, -0.07, -0.06))
    assert ends(between) == pytest.approx((-0.06 - math.hypot(0.03, 0.04), -0.06 + math.hypot(0.02, 0.02)))
    assert between.minimum_detectable_effect == pytest.approx(math.hypot(0.025, 0.03))
    assert (between.items, between.clusters, between.bound) == (200, 40, None)


@pytest.mark.parametrize("few", [0, 1])
def test_too_few_repositories_on_either_side_have_no_interval(few: int) -> None:
    rng = np.random.default_rng(1)
    sides = [compare(losses(rng, FEWEST_CLUSTERS - (side == few), 0.0)) for side in (0, 1)]
    between = contrast(*sides)
    assert (between.low, between.high, between.minimum_detectable_effect) == (None, None, None)


@pytest.mark.parametrize(("here", "elsewhere"), [(8, 40), (40, 8), (20, 20)])
def test_what_any_code_gains_is_rarely_called_specific(here: int, elsewhere: int) -> None:
    """Both gain 0.06 nats. More careful than 95 % where a side has few repositories, never less."""
    rng = np.random.default_rng(6)
    intervals = [
        ends(contrast(compare(losses(rng, here, -0.06), seed), compare(losses(rng, elsewhere, -0.06), seed)))
        for seed in range(500)
    ]
    covered = sum(low <= 0 <= high for low, high in intervals) / 500
    assert covered == pytest.approx(0.96, abs=0.025)  # 0.935: three standard errors below 0.95
    assert sum(high < 0 for _, high in intervals) / 500 <= 0.045
