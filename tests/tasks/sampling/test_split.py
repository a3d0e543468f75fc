"""Which repositories are held out."""

from __future__ import annotations

import random

import pytest

from tasks.sampling.split import held_out


@pytest.mark.parametrize("seed", range(20))
def test_share_is_met_and_both_sides_have_a_repository(seed: int) -> None:
    chooser = random.Random(seed)
    sizes = {f"r{n}": int(chooser.paretovariate(1.0)) for n in range(chooser.randint(2, 200))}
    share = chooser.choice([0.01, 0.1, 0.3, 0.5])
    out = held_out(sizes, share, seed)
    assert out and set(sizes) - out
    assert sum(sizes[repo] for repo in out) <= max(1.5 * share * sum(sizes.values()), min(sizes.values()))


@pytest.mark.parametrize("seed", range(10))
def test_a_giant_is_never_held_out(seed: int) -> None:
    sizes = {"giant": 1000, **{f"r{n}": 10 for n in range(30)}}
    out = held_out(sizes, 0.1, seed)
    assert "giant" not in out and 100 <= 10 * len(out) <= 200


def test_order_of_repositories_does_not_matter_but_the_seed_does() -> None:
    sizes = {f"r{n}": n + 1 for n in range(50)}
    backwards = dict(reversed(sizes.items()))
    assert held_out(sizes, 0.2, 0) == held_out(backwards, 0.2, 0) != held_out(sizes, 0.2, 1)


def test_of_two_the_smaller_is_held_out() -> None:
    assert held_out({"large": 99, "small": 1}, 0.1, 0) == {"small"}
