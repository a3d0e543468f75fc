"""Private folders: what was made in them is gone, and what links lead to is as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts import private
from artifacts.errors import InputError


def deep(folder: Path, mode: int = 0o700, depth: int = 3000) -> None:
    """Folders within folders, each of this mode, below any path that a name could reach."""
    above = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", 0o700, dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.fchmod(above, mode)
        os.close(above)
        above = below
    os.close(above)


def odd_names(folder: Path) -> None:
    for name in (b"\xff\xfe", b"\n", b"-rf", b" ", b"x" * 255):
        os.close(os.open(os.path.join(os.fsencode(folder), name), os.O_CREAT))  # noqa: PTH118
        os.mkdir(os.path.join(os.fsencode(folder), b"\x80" + name[:200]), 0)  # noqa: PTH102, PTH118


LEFT: dict[str, Callable[[Path], None]] = {
    "nothing": lambda folder: None,
    "depth": deep,
    "closed": lambda folder: deep(folder, 0, 20),
    "only to be searched": lambda folder: deep(folder, 0o300, 1200),
    "only to be listed": lambda folder: deep(folder, 0o500, 20),
    "names": odd_names,
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "many": lambda folder: [(folder / str(number)).mkdir() for number in range(2000)] and None,
}


@pytest.mark.parametrize("way", LEFT)
def test_nothing_stays_of_a_temporary_folder(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private.temporary_folder("x-") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        LEFT[way](folder)
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_user_removes_closed_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root reads what is closed anyway: the same in a process that is somebody else's, if this one is root's.
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)  # what the folders above are closed to does not matter from here
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(12345, 12345, 12345)
                os.setresuid(12345, 12345, 12345)
            for name, make in (("a", deep), ("b", LEFT["closed"]), ("c", LEFT["only to be listed"])):
                Path(name).mkdir()
                make(Path(name))
                private.remove(Path(name))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir(mode=0o755)
    (outside / "file").write_text("as it was")
    (inside / "a" / "b").mkdir(parents=True)
    for place in (inside, inside / "a", inside / "a" / "b"):
        (place / "link").symlink_to(outside)
    private.remove(inside)
    assert not inside.exists() and (outside / "file").read_text() == "as it was"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    inside.symlink_to(outside)
    with pytest.raises(OSError, match="inside"):
        private.remove(inside)


def test_a_temporary_folder_that_others_could_exchange_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "below"))
    (tmp_path / "below").mkdir()
    tmp_path.chmod(0o777)
    with pytest.raises(InputError) as caught:
        private.temporary_root()
    assert caught.value.field == "TMPDIR"
    tmp_path.chmod(0o1777)
    assert private.temporary_root() == tmp_path / "below"


def test_what_is_compiled_and_run_lies_in_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine = private.cache_folder("x")
    assert mine == tmp_path / "cache" / "codetune" / "x" and stat.S_IMODE(mine.stat().st_mode) == 0o700
    mine.rmdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    assert private.cache_folder("x").parent == tmp_path and not (tmp_path / "~").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    mine.symlink_to(tmp_path / "elsewhere")
    for other in (private.cache_folder("x"), private.cache_folder("x")):
        assert other.parent == tmp_path and stat.S_IMODE(other.stat().st_mode) == 0o700
        assert len(other.name) > len("codetune-x-") + 7


def test_what_killed_processes_left_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(private, "_YOUNG", 0)
    (tmp_path / "x-left" / "d").mkdir(parents=True)
    (tmp_path / "x-link").symlink_to(tmp_path)
    with private.temporary_folder("x-") as used:
        private.remove_left_behind("x-")
        assert {one.name for one in tmp_path.iterdir()} == {"x-link", used.name}
