"""Attacks on other processes and on the kernel: none started, none signalled, none traced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.tasks.sandbox.attacks import attacked, body

STARTING = {
    "fork bomb": "\nwhile True:\n    os.fork()",
    "daemon": "\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time\n        time.sleep(600)\n    os._exit(0)",
    "vfork": "ctypes.CDLL(None).vfork() >= 0 or 1 / 0",
    "clone": "ctypes.CDLL(None).syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0) >= 0 or 1 / 0",
    "clone3": "ctypes.CDLL(None).syscall(435, bytes(64), 64) >= 0 or 1 / 0",
    "spawn": "os.posix_spawn('/bin/sleep', ['sleep', '600'], {})",
    "subprocess": "import subprocess; subprocess.Popen(['sleep', '600'])",
    "shell": "os.system('sleep 600 &') == 0 or 1 / 0",
    "interpreter": "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
    "multiprocessing": "import multiprocessing as m, time; m.get_context('fork').Process(target=time.sleep, args=(600,)).start()",
    "becoming another": "os.execv('/bin/sleep', ['sleep', '600'])",
    "pseudo-terminal": "import pty; pty.spawn(['sleep', '600'])",
}


def within(folder: Path) -> list[int]:
    """Processes that work in a folder below this one, gone or not."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another test may be in a folder deeper than a path can say
            if process.cwd().startswith(str(folder)):
                found.append(process.pid)
    return found


@pytest.mark.parametrize("way", STARTING)
def test_no_process_is_started(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    assert not attacked(body(STARTING[way])).passed
    assert within(tmp_path) == []


def test_a_process_left_behind_would_be_seen(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], cwd=tmp_path) as process:
        assert within(tmp_path) == [process.pid]
        process.kill()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that an attack may try to hit."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        assert process.poll() is None  # it lives
        process.kill()


SIGNALLING = {
    "kill": "os.kill({pid}, 9)",
    "kill the judge": "os.kill(os.getppid(), 9)",
    "kill the group": "os.killpg(0, 9)",
    "kill everybody": "os.kill(-1, 9)",
    "queue": "ctypes.CDLL(None).sigqueue({pid}, 9, 0) == 0 or 1 / 0",
    "by descriptor": "import signal; signal.pidfd_send_signal(os.pidfd_open({pid}), 9)",
    "by ownership": "import fcntl; r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, {pid}); fcntl.fcntl(r, 10, 9)",
    "priority": "os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
    "affinity": "os.sched_setaffinity({pid}, [0])",
    "limit": "import resource; resource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1))",
    "trace": "ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) == 0 or 1 / 0",
    "memory file": "open('/proc/{pid}/mem', 'rb')",
}


@pytest.mark.parametrize("way", SIGNALLING)
def test_no_other_process_is_touched(way: str, victim: subprocess.Popen[bytes]) -> None:
    assert not attacked(body(SIGNALLING[way].format(pid=victim.pid))).passed
    assert victim.poll() is None


KERNEL = {  # numbers of x86_64 and aarch64
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "prctl": (157, 167),
    "setuid": (105, 146),
    "setsid": (112, 157),
    "personality": (135, 92),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
}


def test_the_kernels_dangerous_calls_are_refused() -> None:
    column = ["x86_64", "aarch64"].index(os.uname().machine)
    numbers = {name: numbers[column] for name, numbers in KERNEL.items()}
    source = f"""
    import ctypes
    def attack():
        library = ctypes.CDLL(None, use_errno=True)
        got = []
        for name, number in {numbers!r}.items():
            ctypes.set_errno(0)
            if library.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
                got.append(name)
        return got
    """
    assert attacked(source, "[]").passed


def test_calls_by_the_numbers_of_another_architecture_are_refused() -> None:
    # x32 numbers of x86_64: socket is 41 with bit 30 set.
    assert not attacked(body("ctypes.CDLL(None).syscall(0x40000000 | 41, 2, 1, 0) >= 0 or 1 / 0")).passed


def test_everything_dies_with_the_judge(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code = (
        "import tempfile; tempfile.tempdir = sys.argv[1]\nfrom tests.tasks.sandbox.attacks import attacked\n"
        "attacked('def attack():\\n while True: pass', seconds=600)"
    )
    with subprocess.Popen([sys.executable, "-c", f"import sys; {code}", str(tmp_path)]) as judge:
        wait_for(lambda: len(psutil.Process(judge.pid).children(recursive=True)) == 3)
        jail = psutil.Process(judge.pid).children(recursive=True)
        judge.kill()
    wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in jail))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
