"""Releases, the newest commits, and the lines by which two files differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.checkout import Commit
from tasks.sampling.history import RemovedFiles, added, newest, release_of


def lines(before: str, after: str) -> list[str]:
    return [after[span.start : span.end] for span in added(before, after)]


@pytest.mark.parametrize(
    ("folder", "project", "called"),
    [
        ("click-8.1.7", "click", "8.1.7"),
        ("Flask_SQLAlchemy-3.0", "flask-sqlalchemy", "3.0"),
        ("a.b-v2.0rc1", "a-b", "v2.0rc1"),
        ("python-dateutil-2.9.0.post0", "python-dateutil", "2.9.0.post0"),
    ],
)
def test_a_release_is_told_by_its_folder(folder: str, project: str, called: str) -> None:
    found = release_of(Path("/x", folder, "src", "m.py"), Path("/x"))
    assert found and (found.project, found.called, found.folder) == (project, called, Path("/x", folder))
    assert release_of(Path("/x", folder, "m.py"), Path("/x", folder)) == found


@pytest.mark.parametrize("folder", ["step-1", "click", "8.1.7", "-1.2", "notes-2024", "utf-8.x", "a-1.2.", "v1.2"])
def test_other_folders_are_no_releases(folder: str) -> None:
    assert release_of(Path("/x", folder, "m.py"), Path("/x")) is None


def test_a_release_above_the_source_path_is_not_seen() -> None:
    assert release_of(Path("/x/click-8.1/src/m.py"), Path("/x/click-8.1/src")) is None


def test_versions_are_ordered_by_their_numbers() -> None:
    names = ["p-1.0.dev1", "p-1.0a2", "p-1.0rc1", "p-1.0", "p-1.0.post1", "p-1.0.1", "p-1.9", "p-1.10"]
    found = [release_of(Path("/x", name, "m.py"), Path("/x")) for name in names]
    versions = [one.version for one in found if one]
    assert sorted(versions[2:]) == versions[2:] and max(versions[:3]) < versions[3]
    same = release_of(Path("/x/p-1.0.0/m.py"), Path("/x"))
    assert same and same.version == versions[3]


def test_added_lines_are_whole_and_in_order() -> None:
    before = "a = 1\n\ndef f():\n    return 1\n"
    after = "import x\na = 1\n\n\ndef g():\n    return 2\n\ndef f():\n    return 1\nlast = 3"
    assert lines(before, after) == ["import x\n", "def g():\n    return 2\n", "last = 3"]
    assert lines("", after) == [after] and lines(after, after) == [] == lines(after, "")


def test_white_space_at_the_ends_of_a_line_is_no_addition() -> None:
    assert lines("if a:\n    b = 1\n", "b = 1   \r\n") == []
    assert lines("a\r\nb\r\n", "a\nnew\nb\n") == ["new\n"]


def test_what_was_removed_is_not_asked_for() -> None:
    assert lines("a\nb\nc\nd\n", "a\nd\n") == []
    assert lines("a\nb\nc\nd\n", "a\nx\nd\n") == ["x\n"]


def test_a_file_is_found_under_another_name() -> None:
    old = [f"line_number_{n} = {n}\n" for n in range(20)]
    gone = RemovedFiles(["something = else\n" * 9, "".join(old)])
    assert gone.renamed("".join([*old[:15], "fresh_line = 1\n"])) == "".join(old)
    assert gone.renamed("".join([*old[:5], *(f"other_line_{n} = 1\n" for n in range(15))])) is None
    assert RemovedFiles([]).renamed("x = 1\n") is None


def commits(*seconds: int) -> list[Commit]:
    return [Commit(second, f"{number}") for number, second in enumerate(seconds)]


def test_the_newest_commits_of_all_repositories_are_later() -> None:
    one, other = Path("/one"), Path("/other")
    histories = {one: commits(*range(0, 100, 10)), other: commits(*range(80, 100))}
    assert newest(histories, 0.5) == {one: 1, other: 14}
    assert sum(newest(histories, 0.1).values()) == 3
    assert newest(histories, 0.001) == {one: 0, other: 1}


def test_of_a_single_repository_the_first_commit_is_always_learned_from() -> None:
    """Commits of one second are told apart by their order."""
    only = Path("/only")
    assert newest({only: commits(5, 5)}, 0.5) == {only: 1}
    assert newest({only: commits(5, 5, 5)}, 0.5) == {only: 2}
