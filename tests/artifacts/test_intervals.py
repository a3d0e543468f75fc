"""What an interval and a margin say."""

from __future__ import annotations

import numpy as np
import pytest

from artifacts.intervals import Better, Verdict, verdict
from tasks.statistics import paired_difference


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (0.01, 0.03, "higher", "improved"),
        (-0.03, -0.01, "lower", "improved"),
        (-0.01, 0.03, "higher", "non-inferior"),
        (-0.015, -0.001, "higher", "non-inferior"),  # worse for certain, but by less than the margin
        (-0.03, 0.03, "higher", "inconclusive"),
        (-0.05, -0.01, "higher", "regressed"),
        (0.01, 0.05, "lower", "regressed"),
        (-0.02, 0.03, "higher", "inconclusive"),  # just at the margin is not above it
    ],
)
def test_verdicts(low: float, high: float, better: Better, expected: Verdict) -> None:
    assert verdict(low, high, better=better, margin=0.02) == expected


@pytest.mark.parametrize(("bound", "expected"), [(-0.019, "non-inferior"), (-0.02, "inconclusive")])
def test_what_is_kept_must_lie_within_the_bound_too(bound: float, expected: Verdict) -> None:
    assert verdict(-0.01, 0.03, better="higher", margin=0.02, bound=bound) == expected
    assert verdict(-0.03, 0.01, better="lower", margin=0.02, bound=-bound) == expected


def test_without_an_interval_nothing_is_claimed() -> None:
    assert verdict(None, None, better="higher", margin=0.02) == "inconclusive"


def test_a_margin_below_zero_is_no_margin() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        verdict(0.0, 1.0, better="higher", margin=-0.01)


def test_a_model_worse_by_the_margin_is_rarely_called_kept() -> None:
    rng, said = np.random.default_rng(4), []
    for seed in range(600):
        change = rng.normal(-0.02, 0.03, 12)
        clusters = [str(number) for number in range(12)]
        found = paired_difference([0.5] * 12, (0.5 + change).tolist(), clusters, seed=seed)
        said.append(verdict(found.low, found.high, better="higher", margin=0.02))
    assert sum(one in ("non-inferior", "improved") for one in said) / 600 <= 0.025 + 0.013


@pytest.mark.parametrize(
    ("base", "low", "high", "expected"),
    [
        (1 / 164, -0.006, 0.0, "inconclusive"),  # whatever is lost of it is less than the margin
        (0.05, 0.0, 0.0, "inconclusive"),
        (0.06, -0.02, 0.01, "non-inferior"),
        (1 / 164, 0.01, 0.1, "improved"),
        (0.3, -0.02, 0.01, "non-inferior"),
    ],
)
def test_who_solves_next_to_nothing_has_nothing_to_lose(base: float, low: float, high: float, expected: str) -> None:
    assert verdict(low, high, better="higher", margin=0.05, base=base) == expected
