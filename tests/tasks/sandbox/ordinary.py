"""Python run as an ordinary user where the tests run as root: what holds for root may not hold for others."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[3]
_SETUP = """
mount -t tmpfs -o mode=755 place /mnt && mkdir /mnt/0 /mnt/1 /mnt/2 && mkdir -m 1777 /mnt/tmp &&
mount --bind "$1" /mnt/0 && mount --bind "$2" /mnt/1 && mount --bind "$3" /mnt/2 || exit
for closed in $5; do mount -t tmpfs -o mode=755 place "$closed" || exit; done
mkdir -p "$1" "$2" "$3" && mount --bind /mnt/0 "$1" && mount --bind /mnt/1 "$2" && mount --bind /mnt/2 "$3" &&
cd / && exec setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=-all --bounding-set=-all \\
env -i PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$2:$3" TMPDIR=/mnt/tmp HOME=/mnt/tmp "$6" -c "$4"
"""
"""Mounts of its own open the folders of interpreter, packages and code, if others may not enter them."""


def ordinary(code: str) -> str:
    """What the code printed. It can import the tests."""
    if os.geteuid() != 0:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this root cannot make mounts to become an ordinary user who finds the interpreter")
    folders = [sys.base_prefix, str(_REPOSITORY), sysconfig.get_path("purelib")]
    closed = {place for folder in folders if (place := _closed(Path(folder)))}
    python = getattr(sys, "_base_executable", sys.executable)
    command = ["unshare", "-m", "bash", "-c", _SETUP, "ordinary", *folders, code, " ".join(closed), python]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _closed(folder: Path) -> str | None:
    """The uppermost folder on the way that others may not enter."""
    return next(
        (str(one) for one in reversed((folder, *folder.parents)) if not one.stat().st_mode & stat.S_IXOTH), None
    )
