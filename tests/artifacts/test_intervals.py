"""What an interval and a margin say."""

from __future__ import annotations

import numpy as np
import pytest

from artifacts.intervals import Better, Verdict, verdict
from tasks.statistics import paired_difference


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (0.01, 0.03, "higher", "learned"),
        (-0.03, -0.01, "lower", "learned"),
        (-0.01, 0.03, "higher", "kept"),
        (-0.015, -0.001, "higher", "kept"),  # worse for certain, but by less than the margin
        (-0.03, 0.03, "higher", "unclear"),
        (-0.05, -0.01, "higher", "worse"),
        (0.01, 0.05, "lower", "worse"),
        (-0.02, 0.03, "higher", "unclear"),  # just at the margin is not above it
    ],
)
def test_verdicts(low: float, high: float, better: Better, expected: Verdict) -> None:
    assert verdict(low, high, better=better, margin=0.02) == expected


@pytest.mark.parametrize(("floor", "expected"), [(-0.019, "kept"), (-0.02, "unclear")])
def test_what_is_kept_must_lie_above_the_floor_too(floor: float, expected: Verdict) -> None:
    assert verdict(-0.01, 0.03, better="higher", margin=0.02, floor=floor) == expected


def test_without_an_interval_nothing_is_claimed() -> None:
    assert verdict(None, None, better="higher", margin=0.02) == "unclear"


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
    assert sum(one in ("kept", "learned") for one in said) / 600 <= 0.025 + 0.013
