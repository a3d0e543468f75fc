"""Which repositories are held out."""

from __future__ import annotations

import hashlib

_OVERSHOOT = 1.5
"""A repository that would bring the held-out side to more than this many times its share goes to training."""


def held_out(repositories: dict[str, int], share: float, seed: int) -> frozenset[str]:
    """The repositories to hold out: in seeded order until they hold `share` of the files.

    Repositories that are too large for the held-out side are passed over, so that one giant cannot swallow it; when all
    are too large, the smallest is held out. Both sides get at least one.

    Args:
        repositories: files by repository, at least two.
        share: above 0, at most 0.5.
    """
    assert len(repositories) >= 2
    wanted = share * sum(repositories.values())
    taken, size = [], 0
    order = sorted(repositories, key=lambda repo: _rank(repo, seed))
    for repo in order:
        if size >= wanted:
            break
        if size + repositories[repo] <= _OVERSHOOT * wanted:
            taken.append(repo)
            size += repositories[repo]
    return frozenset(taken or [min(order, key=lambda repo: repositories[repo])])


def _rank(repo: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:split:{repo}".encode()).digest()
