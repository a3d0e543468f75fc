"""Proportions against published figures."""

from __future__ import annotations

import pytest

from tasks.statistics import mcnemar, wilson


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


def test_mcnemar_counts_what_differs() -> None:
    base = [1.0] * 5 + [0.0] * 1 + [1.0] * 10
    tuned = [0.0] * 5 + [1.0] * 1 + [1.0] * 10
    found = mcnemar(base, tuned)
    assert (found.gained, found.lost) == (1, 5)
    assert found.p == pytest.approx(2 * (1 + 6) / 64)  # binomial, by hand
    assert mcnemar([1.0], [1.0]).p == 1.0


def test_mcnemar_refuses_shares() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar([0.5], [1.0])
