"""Attacks on limits that one process's own limits do not hold: all of the disk, all threads. As root and as others,
with namespaces and on a machine that allows none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.sandbox import Limits, config, probe
from tests.tasks.sandbox.attacks import attacked, body
from tests.tasks.sandbox.ordinary import ordinary

LIMITS = Limits(file_mib=4, scratch_mib=16, seconds=20)
ROOMY = Limits(file_mib=4, scratch_mib=128, seconds=20)
_KEEP = """
import mmap, time
held, mib = [], bytes(1 << 20)
def fill(descriptor, size=4):
    for _ in range(size):
        os.write(descriptor, mib)
    held.append(descriptor)
def new(name):
    return os.open(name, os.O_RDWR | os.O_CREAT)
try:
    for n in range(18):
{step}
except OSError:
    return False
time.sleep(0.5)
"""
HOARDING = {
    "files": "fill(new(str(n)))",
    "unlinked": "f = new('f'); os.unlink('f'); fill(f)",
    "replaced": "f = new('f'); os.rename('f', 'g'); fill(f)",
    "never named": "fill(os.open('.', os.O_TMPFILE | os.O_RDWR))",
    "mapped": "f = new('f'); os.unlink('f'); os.truncate(f, 4 << 20); m = mmap.mmap(f, 4 << 20); held.append(m)\n"
    "os.close(f)\nfor page in range(0, 4 << 20, 4096): m[page] = 1",
    "closed folders": "os.mkdir(str(n), 0o300); fill(new(f'{n}/f'))",
    "depth": "for _ in range(250): os.mkdir('d' * 99); os.chdir('d' * 99)\nfill(new('f'))",
}


def hoarding(way: str) -> str:
    """A program that keeps 72 MiB and is content if nothing stops it for half a second."""
    step = "\n".join(f"        {line}" for line in HOARDING[way].splitlines())
    return body(_KEEP.format(step=step))


THREADS = body(
    "import threading, time\nthreading.stack_size(32768)\nheld = []\n"
    "try:\n    for _ in range({}): held.append(threading.Thread(target=time.sleep, args=(1,), daemon=True)); held[-1].start()\n"
    "except RuntimeError:\n    return False\ntime.sleep(0.5)"
)


@pytest.fixture(params=["namespaces", "none"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders are made; a machine without namespaces cannot be had, so this one does without."""
    monkeypatch.setattr(config, "NAMESPACES", request.param == "namespaces")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("way", HOARDING)
def test_no_way_keeps_more_on_disk_than_the_limit(way: str, place: Path) -> None:
    verdict = attacked(hoarding(way), limits=LIMITS)
    assert verdict.outcome in ("failed", "killed", "error"), verdict
    assert list(place.iterdir()) == []


@pytest.mark.skipif("disk" not in probe().layers, reason="no file system of a jail's own can be mounted here")
@pytest.mark.parametrize("way", sorted(set(HOARDING) - {"never named"}))
def test_with_room_the_same_ways_are_free(way: str) -> None:
    assert attacked(hoarding(way), limits=ROOMY).passed


def test_no_more_threads_than_the_limit(place: Path) -> None:
    assert not attacked(THREADS.format(40)).passed
    assert attacked(THREADS.format(20)).passed


@pytest.mark.parametrize("namespaces", [True, False])
def test_the_same_as_an_ordinary_user(namespaces: bool) -> None:
    code = f"""
import json, os
from artifacts import private
from tasks.sandbox import config, probe
from tests.tasks.sandbox.test_limits import *
config.NAMESPACES = {namespaces}
ways = {{way: attacked(hoarding(way), limits=LIMITS).outcome for way in HOARDING}}
threads = [attacked(THREADS.format(count)).passed for count in (40, 20)]
print(json.dumps([os.geteuid(), probe().level, ways, threads, [*private.temporary_root().glob("codetune-sandbox-*")]]))
"""
    user, level, ways, threads, left = json.loads(ordinary(code))
    assert (user != 0, level, threads, left) == (True, "strong", [False, True], [])
    assert set(ways) == set(HOARDING) and "passed" not in ways.values(), ways
