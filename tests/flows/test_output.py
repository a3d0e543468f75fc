"""Where a command prints: other encodings, readers that leave, closed and full outputs, narrow terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from artifacts.progress import Tick
from flows.terminal import Terminal

CODETUNE = str(Path(sys.executable).with_name("codetune"))
COMMANDS = {
    "help": ["--help"],
    "help of a command": ["run", "--help"],
    "recipes": ["recipes"],
    "settings": ["recipes", "--settings"],
    "runs": ["runs"],
    "models": ["models", "--all"],
    "preflight": ["preflight", "demo"],
    "why": ["why", "training", "demo"],
    "no such stage": ["why", "…", "demo"],
    "no such model": ["lineage", "“v1”"],
    "no such recipe": ["run", "\udcff→"],
    "no such option": ["run", "demo", "--… "],
}
ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8", "ascii:strict", "koi8-r"]


def run(
    arguments: list[str], tmp_path: Path, shell: str = '"$@"', **environment: str
) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"CODETUNE_STORE": str(tmp_path / "store"), "CUDA_VISIBLE_DEVICES": ""} | environment
    command = ["bash", "-o", "pipefail", "-c", shell, "bash", CODETUNE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=given, timeout=90)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", ["help", "no such stage", "no such recipe", "no such option"])
def test_no_encoding_ends_a_command(command: str, encoding: str, tmp_path: Path) -> None:
    done = run(COMMANDS[command], tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == (0 if command == "help" else 2)
    assert "Traceback" not in done.stderr and "Error" not in done.stderr.replace("─ Error ─", "").replace(
        "- Error -", ""
    )
    assert encoding != "ascii" or (done.stdout + done.stderr).isascii()


ODD = [
    {"PYTHONIOENCODING": "ascii", "COLUMNS": "20"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.slow
@pytest.mark.parametrize("environment", ODD, ids=["ascii, narrow", "C"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_in_every_encoding(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = run(COMMANDS[command], tmp_path, **environment)
    assert done.returncode == (2 if command.startswith("no such") else 0), done.stderr
    assert "Traceback" not in done.stderr


SHELLS = {
    "a reader that leaves": '"$@" | head -c 1 > /dev/null',
    "a reader that is not there": '"$@" | true',
    "closed": '"$@" >&-',
    "all closed": '"$@" >&- 2>&- <&-',
    "errors closed": '"$@" 2>&-',
    "errors to a reader that leaves": '"$@" 2> >(true)',
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", ["help", "settings", "no such stage"])
def test_output_that_nobody_takes_changes_nothing(command: str, shell: str, tmp_path: Path) -> None:
    done = run(COMMANDS[command], tmp_path, SHELLS[shell])
    assert done.returncode == (2 if command == "no such stage" else 0)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_output_that_a_full_disk_does_not_take_is_an_error(tmp_path: Path) -> None:
    done = run(["recipes"], tmp_path, '"$@" > /dev/full')
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", [1, 20, 80])
def test_a_terminal_may_be_narrow(columns: int, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    done = subprocess.run([CODETUNE, "recipes"], stdout=slave, stderr=subprocess.PIPE, timeout=60)
    os.close(slave)
    assert done.returncode == 0 and not done.stderr
    os.close(master)


READINGS = {"loss": 1.4321, "tokens/s": 2787.0, "memory": "1.1 GiB", "learning rate": 0.00098, "more": "x" * 80}


def bar(width: int, *ticks: Tick) -> str:
    """What is shown after ticks that come a second apart."""
    moments = iter(range(10_000))
    shown = StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None, soft_wrap=True)
    terminal = Terminal(console)
    terminal._bars.get_time = lambda: float(next(moments))
    terminal.started("training")
    for tick in ticks:
        terminal.ticked("training", tick)
    shown.truncate(0)
    console.print(terminal._bars.get_renderable())
    return shown.getvalue().strip("\0")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_bar_steps_and_time_left_are_seen_at_any_width(width: int) -> None:
    line = bar(width, *(Tick("training", done, 30, "steps", READINGS) for done in (3, 6, 9, 12)))
    assert "━" in line and "12 / 30 steps" in line and "s left" in line
    assert len(line.splitlines()) == 1 and (width < 80 or "loss 1.432" in line)


@pytest.mark.parametrize("width", [20, 30, 45])
def test_a_narrow_terminal_shows_the_steps(width: int) -> None:
    (line,) = bar(width, Tick("training", 12, 30, "steps", READINGS)).splitlines()
    assert "12 / 30 steps" in line


def test_what_counts_nothing_shows_no_zero() -> None:
    for title in ("starting", "judging", "writing the report"):
        assert bar(80, Tick(title, 0, None, "")).replace("━", "").split()[1:] == ["training", *title.split()]


def test_a_current_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(["models"], tmp_path, f'cd {gone} && rmdir {gone} && "$@"', CODETUNE_STORE="")
    assert done.returncode == 1 and "current folder" in done.stderr and "Traceback" not in done.stderr
