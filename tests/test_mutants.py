"""What `make mutants` changes and runs is there, and only what is inside of a sentence goes as words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import install
from tools.mutants import AREAS, LOCK, VIEW, _of_a_sentence

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", AREAS)
def test_an_area_names_files_that_exist(name: str) -> None:
    area = AREAS[name]
    assert all(list(ROOT.glob(pattern)) for pattern in (*area.sources, *area.views))
    places = [ROOT / test for test in area.tests]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))]
    assert all(place.exists() for place in places) and files
    assert all(any(part in file.read_text() for file in files) for part in area.slow)


def test_the_tool_is_pinned_with_hashes() -> None:
    packages = install.locked(LOCK)
    assert "mutmut" in packages and all("--hash=sha256:" in text for text in packages.values())


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            'return "promote", (f"a {x}." if x else "nothing here",)',
            'return "promote", (f"a {x}." if x else "XX",)',
            False,
        ),
        ('text = "nothing here"', 'text = "NOTHING HERE"', True),
        ('text = f"{a} and"', 'text = f"XX{a} andXX"', True),
        ('kind = "hold"', 'kind = "HOLD"', False),
        ('text = "a b" + c', 'text = "a b" - c', False),
        ('write("a.json", indent=1, to="b")', 'write("a.json", indent=2, to="b")', False),
    ],
)
def test_words(before: str, after: str, words: bool) -> None:
    assert _of_a_sentence(f"--- a\n+++ b\n x\n-{before}\n+{after}\n") == words


def test_views_are_left_as_they_are() -> None:
    source = "def sections(decision: D) -> list[S]:\n    return []\n\n\ndef decide() -> int:\n    return 1\n"
    marked = VIEW.sub(r"\1  # pragma: no mutate block", source).splitlines()
    assert [line.endswith("block") for line in marked] == [True, False, False, False, False, False]
