"""Figures in words."""

from __future__ import annotations

import pytest

from artifacts.presentation import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (1_200, ("file",), "1,200 files"),
        (1, ("repository", "repositories"), "1 repository"),
        (2, ("repository", "repositories"), "2 repositories"),
    ],
)
def test_one_is_counted_in_the_singular(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said
