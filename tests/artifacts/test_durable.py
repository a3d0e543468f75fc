"""Folders and files of ours are closed to others; what links lead to is not touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from artifacts import durable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_closed_to_others_and_open_to_the_group_as_the_one_above(tmp_path: Path) -> None:
    assert mode(durable.closed_folder(tmp_path / "a")) == 0o750
    (tmp_path / "a").chmod(0o775)
    assert mode(durable.closed_folder(tmp_path / "a" / "b")) == 0o770
    assert mode(durable.closed_folder(tmp_path / "a")) == 0o770


def test_what_a_link_leads_to_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir(mode=0o755)
    (tmp_path / "file").touch(mode=0o644)
    for name in ("system", "file"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(tmp_path / name)
        before = mode(tmp_path / name)
        durable.close_to_others(link)
        durable.closed_folder(link)
        assert mode(tmp_path / name) == before != 0o750
        durable.close_to_others(tmp_path / name)
        assert mode(tmp_path / name) & stat.S_IRWXO == 0


def test_what_is_written_is_utf8_and_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        durable.write(tmp_path / "text", "ä▁\n")
    finally:
        os.umask(before)
    assert (tmp_path / "text").read_bytes() == "ä▁\n".encode()
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o640
