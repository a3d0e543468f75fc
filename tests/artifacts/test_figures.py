"""Figures have stable bytes and need nothing but themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from artifacts import figures


def _curve() -> bytes:
    with figures.drawing(4, 2) as figure:
        axes = figure.subplots()
        axes.plot([0, 1, 2], [2.5, 2.1, 1.9], label="tuned")
        axes.set_xlabel("step")
        axes.legend()
        return figures.to_svg(figure)


def test_equal_drawings_have_equal_bytes() -> None:
    assert _curve() == _curve()


def test_a_users_own_settings_change_nothing() -> None:
    plain = _curve()
    with matplotlib.rc_context({"lines.linewidth": 7, "font.size": 20}):
        assert _curve() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 7, "the caller's settings were not put back"


@pytest.mark.parametrize("kind", ["FIFO", "no text", "no settings"])
def test_settings_in_the_current_folder_are_not_read(kind: str, tmp_path: Path) -> None:
    theirs = tmp_path / "matplotlibrc"
    os.mkfifo(theirs) if kind == "FIFO" else theirs.write_bytes(b"\xff\xfe" if kind == "no text" else b"nothing: 1\n")
    program = "from artifacts.figures import drawing\nwith drawing(): pass"
    call = [sys.executable, "-P", "-c", program]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_svg_is_well_formed_and_carries_no_date() -> None:
    svg = _curve()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"dc:date" not in svg and b"prefers-color-scheme" in svg


def test_no_window_system_is_touched() -> None:
    _curve()
    assert "matplotlib.pyplot" not in sys.modules
