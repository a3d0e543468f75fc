"""Which chosen files are held out, such that none of them stands in the training data.

By whole repositories (`split`), and then by contents, with the measure that the evaluation applies to what it asks
(`tasks.contamination`): copies that no name gives away, such as a folder that was copied without its repository. They
are found here, before any work is done on them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.progress import SILENT, Progress
from tasks.contamination import Documents, EvaluationText, TrainingText, documents, items_in
from tasks.sampling.candidates import Indivisible
from tasks.sampling.pool import Pool
from tasks.sampling.split import held_out, same_repository

log = logging.getLogger(__name__)

_COPY = 0.5
"""A repository of which more than this share stands in the training data goes there with the rest of it, as long as
there is another one to hold out."""


@dataclass(frozen=True)
class Division:
    """The two sides."""

    held_out: frozenset[str]
    """Repositories."""
    copies: frozenset[bytes] = frozenset()
    """Files of theirs that belong to neither side, by their sha256: they stand in a training file."""


def divide(pool: Pool, share: float, seed: int, progress: Progress = SILENT, fewest: int = 1) -> Division:
    """Hold out about `share` of the files, none of which stands in a training file; of `fewest` repositories, if those
    are small enough.

    Raises:
        Indivisible: whatever is held out, all of it does.
    """
    repositories = pool.repositories()
    sizes = _sizes(repositories)
    tied: set[str] = set()
    """Repositories that were tried, and go with the training data."""
    best, most = None, 0
    while chosen := held_out(sizes, share, seed, tied, fewest):
        if tied and 2 * sum(sizes[name] for name in chosen) > sum(sizes.values()):
            break  # what is left to hold out is what the others are copies of
        sides = Division(frozenset(repo for repo in repositories if same_repository(repo) in chosen))
        copies = _copies(pool, sides.held_out, progress)
        left = sum(sizes[name] for name in chosen) - len(copies)
        if left > most:
            best, most = Division(sides.held_out, frozenset(copies)), left
        copied = Counter(map(same_repository, copies.values()))
        copied_mostly = {name for name in chosen if copied[name] > _COPY * sizes[name]}
        if not copied_mostly:
            break
        log.info("%s: copies of what is trained on, so not held out", ", ".join(sorted(copied_mostly)))
        tied |= copied_mostly
    if best is None:
        raise Indivisible(
            "whichever repository is held out, all its files stand in files of others, word for word or nearly",
            field="sampling.source",
            remedy="name other code besides, or leave out copies of the same code",
        )
    return best


def divide_by_repository(pool: Pool, share: float, seed: int) -> Division:
    """The same without a look into the files, where nothing is learned from either side."""
    repositories = pool.repositories()
    chosen = held_out(_sizes(repositories), share, seed)
    return Division(frozenset(repo for repo in repositories if same_repository(repo) in chosen))


def different_repositories(pool: Pool) -> int:
    """How many there are to divide."""
    return len(_sizes(pool.repositories()))


def standing_in(pool: Pool, training: Path) -> set[bytes]:
    """The files, by their sha256, that stand in the training files of another sample."""
    items = _items(pool, frozenset(pool.repositories()))
    return {bytes.fromhex(item) for item in items_in(documents(training), items, pool.folder)}


def _sizes(repositories: dict[str, int]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for repo, files in repositories.items():
        sizes[same_repository(repo)] += files
    return sizes


def _copies(pool: Pool, aside: frozenset[str], progress: Progress) -> dict[bytes, str]:
    """The held-out files that stand in a training file, each with its repository."""
    progress.begin("looking for copies", pool.chosen(), "files")

    def training() -> Iterator[TrainingText]:
        for number, file in enumerate(pool.files(), 1):
            if file.row.repo not in aside:
                yield TrainingText(file.sha256.hex(), file.content.decode())
            progress.update(number)

    found = items_in(Documents(training), _items(pool, aside), pool.folder)
    return {sha256: pool.repository(sha256) for sha256 in map(bytes.fromhex, found)}


def _items(pool: Pool, repositories: frozenset[str]) -> Iterator[EvaluationText]:
    for file in pool.files():
        if file.row.repo in repositories:
            yield EvaluationText(file.sha256.hex(), {"file": file.content.decode()})
