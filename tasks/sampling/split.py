"""Which repositories are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from tasks import checkout

_OVERSHOOT = 1.5
"""A repository that would bring the held-out side to more than this many times its share goes to training."""

_MOST = 0.25
"""Share of the files that may be held out for the sake of an interval."""


class Groups:
    """Names that belong together, directly or through others."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Two names belong together."""
        self._parents[self.of(one)] = self.of(other)

    def of(self, name: str) -> str:
        """What stands for the group of a name: the same for all of it."""
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = self._parents.get(parent, parent)
            name = parent
        return name


def same_repository(name: str) -> str:
    """Equal for names of one repository: `Owner/Name`, `owner/name.git`; likewise for its addresses."""
    return checkout.address(name) or name.strip("/").removesuffix(".git").lower()


def held_out(
    repositories: Mapping[str, int], share: float, seed: int, passed_over: Collection[str] = (), fewest: int = 1
) -> frozenset[str]:
    """The repositories to hold out: in seeded order until they hold `share` of the files.

    Repositories that are too large for the held-out side are passed over, so that one giant cannot swallow it; when all
    are too large, the smallest is held out. Both sides get at least one.

    Args:
        repositories: files by repository, at least two.
        share: above 0, at most 0.5.
        passed_over: repositories that may not be held out; when that is all of them, none is.
        fewest: as many are held out if that takes no more than a quarter of the files: the smallest beside the others.
    """
    assert len(repositories) >= 2
    wanted = share * sum(repositories.values())
    taken, size = [], 0
    order = sorted(
        set(repositories) - set(passed_over), key=lambda repo: hashlib.sha256(f"{seed}:split:{repo}".encode()).digest()
    )
    for repo in order:
        if size >= wanted:
            break
        if size + repositories[repo] <= _OVERSHOOT * wanted:
            taken.append(repo)
            size += repositories[repo]
    others = (
        sorted((repo for repo in order if repo not in taken), key=repositories.__getitem__)
        if len(taken) < fewest
        else []
    )
    for repo in others[: fewest - len(taken)]:
        if size + repositories[repo] <= _MOST * sum(repositories.values()):
            taken.append(repo)
            size += repositories[repo]
    return frozenset(taken or sorted(order, key=lambda repo: repositories[repo])[:1])
