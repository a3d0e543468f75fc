"""Python run as an ordinary user where the tests run as root: what holds for root may not hold for others."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[3]
_PLACE = "/mnt"
_SETUP = f"""
mount -t tmpfs -o mode=755 place {_PLACE} && cd {_PLACE} && mkdir python code packages && mkdir -m 1777 tmp &&
mount --bind "$1" python && mount --bind "$2" code && mount --bind "$3" packages && cd / &&
exec setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=-all --bounding-set=-all \\
env -i PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={_PLACE}/code:{_PLACE}/packages TMPDIR={_PLACE}/tmp \\
{_PLACE}/python/bin/python{sys.version_info[0]}.{sys.version_info[1]} -c "$4"
"""
"""Mounts of its own make interpreter, packages and code reachable, wherever they are."""


def ordinary(code: str) -> str:
    """What the code printed. It can import the tests."""
    if os.geteuid() != 0:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this root cannot make mounts to become an ordinary user who finds the interpreter")
    folders = (sys.base_prefix, str(_REPOSITORY), sysconfig.get_path("purelib"))
    command = ["unshare", "-m", "bash", "-c", _SETUP, "ordinary", *folders, code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
