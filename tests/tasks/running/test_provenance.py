"""Which code an artifact was built by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.running import provenance
from tests.repositories import commit, git


def test_the_commit_of_this_code_is_read_without_running_what_its_repository_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code() -> tuple[str | None, bool | None]:
        provenance.code.cache_clear()
        found = provenance.code()
        return found["commit"], found["modified"]

    monkeypatch.setattr(provenance, "PACKAGES", commit(tmp_path / "code", {"a.py": "a = 1\n"}))
    git(tmp_path / "code", "config", "core.fsmonitor", f"touch {tmp_path}/pwned; false")
    head = git(tmp_path / "code", "-c", "core.fsmonitor=false", "rev-parse", "HEAD")
    assert code() == (head, False)
    (tmp_path / "code" / "a.py").write_text("a = 2\n")
    assert code() == (head, True) and not (tmp_path / "pwned").exists()
    (tmp_path / "code" / ".git" / "HEAD").unlink()
    assert code() == (None, None)
    provenance.code.cache_clear()
