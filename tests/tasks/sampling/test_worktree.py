"""Which files count: in git working trees of every kind, and around them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from artifacts.errors import InputError
from artifacts.private import remove
from tasks.sampling import source_fingerprint
from tasks.sampling.config import LocalSource, SamplingConfig
from tasks.sampling.local_source import OpenLocalSource
from tasks.sampling.worktree import Finder
from tests.repositories import commit, git
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import everything, programs

FILES = {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n", ".gitignore": "private/\nbuild/\n"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = commit(tmp_path / "mine", FILES)
    for name in ("private", "build"):
        (folder / name).mkdir()
        (folder / name / "secret.py").write_text("password = 1\n")
    return folder


def found(root: Path, tracked_only: bool = True) -> set[str]:
    files = Finder([root], tracked_only=tracked_only).files_below(root)
    return {file.path.relative_to(root).as_posix() for file in files if file.path.suffix == ".py"}


def test_a_repository_that_git_refuses_is_no_plain_folder_unless_it_is_meant(mine: Path) -> None:
    git(mine, "config", "core.repositoryformatversion", "2")
    source = LocalSource(paths=(str(mine),))
    with pytest.raises(InputError, match="version") as refusal:
        OpenLocalSource(source, ("Python",))
    assert str(mine) in refusal.value.problem and "tracked_only" in (refusal.value.remedy or "")
    opened = OpenLocalSource(source.model_copy(update={"tracked_only": False}), ("Python",))
    rows = [row for batch in opened.batches() for row in batch.rows() if row.language]
    assert len(rows) == 4 and {row.revision for row in rows} == {""}


def test_folders_below_around_and_beside_a_working_tree(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert found(mine) == {"a.py", "pkg/b.py"} and found(mine / "pkg") == {"b.py"}
    assert found(mine / "build") == {"secret.py"}  # named by itself
    assert found(mine.parent) == {"mine/a.py", "mine/pkg/b.py"}
    git(mine.parent, "init", "-q", "new")
    (mine.parent / "new" / "c.py").touch()
    assert found(mine.parent / "new") == set() and "tracks no file" in caplog.text


def test_clones_in_a_working_tree_are_counted_and_taken_when_named(
    mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("deps/one", "deps/two"):
        commit(mine / name, {"n.py": "n = 1\n"})
    assert found(mine) == {"a.py", "pkg/b.py"} and "2 git repositories below" in caplog.text
    source = LocalSource(paths=(str(mine),))
    assert "untracked git repositories 2" in OpenLocalSource(source, ("Python",)).describe()
    caplog.clear()
    finder = Finder([mine, mine / "deps/one", mine / "deps/two"])
    taken = [file.path.name for name in ("", "deps/one", "deps/two") for file in finder.files_below(mine / name)]
    assert taken.count("n.py") == 2 and not caplog.text


def test_an_excluded_repository_is_not_asked(mine: Path) -> None:
    broken = commit(mine.parent / "broken", {"b.py": "b = 1\n"})
    (broken / ".git" / "HEAD").unlink()
    source = LocalSource(paths=(str(mine.parent),))
    with pytest.raises(InputError, match="broken"):
        OpenLocalSource(source, ("Python",))
    opened = OpenLocalSource(source.model_copy(update={"exclude": ("broken/*",)}), ("Python",))
    rows = [row.path for batch in opened.batches() for row in batch.rows() if row.language]
    assert rows == ["mine/a.py", "mine/pkg/b.py"]


def test_submodules_are_repositories_of_their_own(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = commit(mine.parent / "library", {"l.py": "l = 1\n"})
    git(mine, "submodule", "--quiet", "add", str(library), "here")
    git(mine, "submodule", "--quiet", "add", str(library), "absent")
    git(mine, "commit", "-q", "-m", "submodules")
    git(mine, "submodule", "--quiet", "deinit", "absent")
    files = {file.path.name: file for file in Finder([mine]).files_below(mine)}
    inner, outer = files["l.py"].checkout, files["a.py"].checkout
    assert inner and outer and inner.commit == git(library, "rev-parse", "HEAD") and "1 submodule" in caplog.text
    (alone,) = Finder([library]).files_below(library)
    assert alone.checkout and alone.checkout.identity & inner.identity and not inner.identity & outer.identity


def test_tracked_names_behind_links_deleted_or_replaced_are_not_followed(mine: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("b.py", "s.py"):
        (outside / name).write_text("secret = 1\n")
    (mine / "link.py").symlink_to(outside / "s.py")
    commit(mine, {"gone.py": "x = 1\n", "pipe.py": "x = 1\n", "sub/m.py": "x = 1\n"})
    git(mine, "add", "link.py")
    shutil.rmtree(mine / "pkg")
    (mine / "pkg").symlink_to(outside)
    (mine / "gone.py").unlink()
    (mine / "pipe.py").unlink()
    os.mkfifo(mine / "pipe.py")
    assert found(mine) == {"a.py", "sub/m.py"}


def test_names_that_are_too_long_or_no_text(tmp_path: Path) -> None:
    mine = commit(tmp_path / "mine", {"caf\udce9.py": "x = 1\n", "A.py": "x = 1\n", "a.py": "x = 2\n"})
    blob = git(mine, "rev-parse", "HEAD:a.py")
    git(mine, "update-index", "--add", "--cacheinfo", f"100644,{blob},{'n' * 300}.py")
    assert found(mine) == {"caf\udce9.py", "A.py", "a.py"}


def test_folders_deeper_than_a_stack_and_a_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "top.py").touch()
    descriptor = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(1400):
        os.mkdir("dd", dir_fd=descriptor)
        above, descriptor = descriptor, os.open("dd", os.O_RDONLY, dir_fd=descriptor)
        os.close(above)
    os.close(descriptor)
    assert found(tmp_path / "deep") == {"top.py"} and "cannot list" in caplog.text
    remove(tmp_path / "deep")


def test_bare_repositories_are_no_code(mine: Path) -> None:
    git(mine.parent, "clone", "-q", "--bare", "mine", "hub.git")
    (mine.parent / "hub.git" / "hooks" / "hook.py").touch()
    assert found(mine.parent) == {"mine/a.py", "mine/pkg/b.py"}
    with pytest.raises(InputError, match="no code"):
        found(mine.parent / "hub.git")


@pytest.mark.parametrize("repositories", ["auto", "git", "path", "top-level", "folder"])
def test_checkouts_of_one_repository_stay_on_one_side(tmp_path: Path, sample: Sample, repositories: str) -> None:
    texts = [record["content"] for record in programs(12)]
    one = commit(tmp_path / "one", {f"p{n}/m.py": text for n, text in enumerate(texts[:4])})
    git(one, "worktree", "add", "-q", str(tmp_path / "two"), "-b", "two")
    for path in (tmp_path / "two").rglob("*.py"):  # another version of each
        path.write_text(path.read_text() + "\nx = 1\n")
    for n, text in enumerate(texts[4:]):
        commit(tmp_path / f"other{n // 4}", {f"q{n}/m.py": text})
    paths = [str(tmp_path / name) for name in ("one", "two", "other0", "other1")]
    result = sample(source={"kind": "local", "paths": paths, "repositories": repositories}, held_out=0.4)
    sides: dict[str, set[str]] = {}
    for row in everything(result):
        sides.setdefault(row["path"], set()).add(row["repo"])
    assert all(len(sides[f"p{n}/m.py"]) == 1 for n in range(4)) and "two" not in {r for s in sides.values() for r in s}


def test_a_new_commit_is_another_source(mine: Path) -> None:
    config = SamplingConfig(source=LocalSource(paths=(str(mine),)))
    before = source_fingerprint(config)
    assert source_fingerprint(config) == before
    (mine / "a.py").write_text("a = 2\n")
    assert source_fingerprint(config) != before


@pytest.mark.parametrize("how", ["gone", "link", "FIFO", "folder"])
def test_what_takes_the_place_of_a_file_meanwhile_is_not_read(mine: Path, how: str) -> None:
    opened = OpenLocalSource(LocalSource(paths=(str(mine),)), ("Python",))
    path = mine / "a.py"
    path.unlink()
    if how == "link":
        path.symlink_to(mine / "private" / "secret.py")
    elif how == "FIFO":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    before = opened.fingerprint()
    (batch,) = opened.batches()
    rows = [row and row.path for row in batch.rows()]
    assert dict(zip(rows, batch.contents(range(len(rows))), strict=True))["a.py"] is None and before
