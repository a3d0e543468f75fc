"""The seeded choice is the same whatever the order in which files come."""

from __future__ import annotations

import errno
import hashlib
import random
from pathlib import Path

import pytest

from tasks.sampling import pool as pool_module
from tasks.sampling.candidates import Row, SourceFile
from tasks.sampling.pool import Pool


def file(number: int, repo: str) -> SourceFile:
    content = b"content %d" % number
    return SourceFile(Row(repo, "p.py", "mit", "Python", ""), content, hashlib.sha256(content).digest())


@pytest.mark.parametrize("seed", range(5))
def test_choice_equals_sorting_everything(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_SLACK", 7)
    files = [file(number, f"r{copy}") for number in range(200) for copy in range(1 + number % 3)]
    random.Random(seed).shuffle(files)
    with Pool(tmp_path / "pool", 30, seed=4) as pool:
        new = sum(pool.add(each) for each in files)
        chosen = [(each.content, each.row.repo) for each in pool.files()]
    order = sorted(range(200), key=lambda number: hashlib.sha256(b"4:" + file(number, "").sha256).digest())
    assert chosen == [(b"content %d" % number, "r0") for number in order[:30]]
    assert new == 200 and not (tmp_path / "pool").exists()


def test_repositories_of_the_chosen_are_counted(tmp_path: Path) -> None:
    with Pool(tmp_path / "pool", 10, seed=0) as pool:
        for number in range(6):
            pool.add(file(number, f"r{number % 2}"))
        assert pool.repositories() == {"r0": 3, "r1": 3} and pool.chosen() == pool.different == 6


def test_full_disk_is_told_as_one(tmp_path: Path) -> None:
    with Pool(tmp_path / "pool", 10, seed=0) as pool:
        pool._database.execute("PRAGMA max_page_count=4")
        with pytest.raises(OSError, match="full") as failure:
            for number in range(1000):
                pool.add(file(number, "r" * 1000))
        assert failure.value.errno == errno.ENOSPC
