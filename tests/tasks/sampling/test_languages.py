"""Languages by names and suffixes."""

from __future__ import annotations

import pytest

from tasks.sampling.languages import language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("src/a.py", "Python"),
        ("src/A.PY", "Python"),
        ("deploy/Dockerfile", "Dockerfile"),
        ("Makefile", "Makefile"),
        ("Makefile/notes", None),
        ("py", None),
    ],
)
def test_the_name_decides_before_the_suffix(path: str, language: str | None) -> None:
    assert language_of(path) == language
