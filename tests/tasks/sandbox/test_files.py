"""Attacks on files: reading what is secret, writing what is not the program's."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path

import pytest

from tasks.sandbox import config, jails, probe
from tests.tasks.sandbox.attacks import attacked, body

READING = {
    "open": "return open({path!r}).read()",
    "descriptor": "return os.read(os.open({path!r}, os.O_RDONLY), 99).decode()",
    "symbolic link": "os.symlink({path!r}, 'link'); return open('link').read()",
    "linked folder": "os.symlink({folder!r}, 'link'); return open('link/secret').read()",
    "hard link": "os.link({path!r}, 'link'); return open('link').read()",
    "copy": "import shutil; return open(shutil.copyfile({path!r}, 'copy')).read()",
    "move": "os.rename({path!r}, 'moved'); return open('moved').read()",
    "exchange": "ctypes.CDLL(None).renameat2(-100, {path!r}.encode(), -100, b'm', 0); return open('m').read()",
    "relative": "os.chdir({folder!r}); return open('secret').read()",
    "upwards": "return open(os.path.relpath({path!r})).read()",
    "folder descriptor": "return os.read(os.open('secret', 0, dir_fd=os.open({folder!r}, os.O_PATH)), 99).decode()",
    "root in proc": "return open('/proc/self/root' + {path!r}).read()",
    "C library": "b = ctypes.create_string_buffer(99); l = ctypes.CDLL(None); "
    "l.read(l.open({path!r}.encode(), 0), b, 99); return b.value.decode()",
    "another root": "os.chroot({folder!r}); return open('/secret').read()",
    "another program": "import subprocess; return subprocess.check_output(['cat', {path!r}], text=True)",
    "source loader": "from importlib.machinery import SourceFileLoader as L; return L('x', {path!r}).get_data({path!r}).decode()",
}


@pytest.mark.parametrize("way", READING)
def test_a_secret_outside_stays_unread(way: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text(secrets.token_hex())
    source = body(READING[way].format(path=str(secret), folder=str(tmp_path)))
    assert not attacked(source, repr(secret.read_text())).passed
    assert secret.is_file()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/maps", "/proc/1/cmdline"]
)
def test_the_systems_files_stay_unread(path: str) -> None:
    verdict = attacked(body(f"return bool(open({path!r}, 'rb').read(1))"))
    assert verdict.outcome == "error" and verdict.detail.startswith(("PermissionError", "FileNotFoundError")), verdict


@pytest.mark.parametrize("folder", ["~", "/", "/etc", "/proc", "/tmp", ".."])
def test_folders_outside_are_not_listed(folder: str) -> None:
    expanded = os.path.expanduser(folder)  # noqa: PTH111 - a string goes into the program
    assert "Permission" in attacked(body(f"os.listdir({expanded!r})")).detail


def test_environment_and_open_files_are_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert not attacked(body("return any('secret' in value for value in os.environ.values())")).passed
        seen = """
        found = []
        for number in range(3, 64):
            try:
                os.fstat(number)
                found.append(number)
            except OSError:
                pass
        return len(found)
        """
        assert attacked(body(seen), "1").passed  # the one that answers go through


def test_packages_of_the_system_and_what_lies_beside_libraries_stay_unread() -> None:
    places = [Path(one) for one in ("/usr/lib/python3", "/usr/lib/python3/dist-packages", "/usr/local/lib", "/usr/lib")]
    files = [Path("/usr/lib/os-release"), *Path("/usr/lib").glob("python3*/site.py")]
    source = f"""
    import os
    def attack():
        read = []
        for path in {[str(one) for one in (*places, *files)]!r}:
            try:
                os.listdir(path) if os.path.isdir(path) else open(path).read(1)
                read.append(path)
            except OSError:
                pass
        return read
    """
    library = os.path.dirname(os.path.realpath(os.__file__))  # noqa: PTH120
    assert attacked(source, repr([str(one) for one in files if str(one).startswith(library)])).passed
    assert not attacked(body("import pydantic")).passed
    assert attacked(
        body(
            "import locale, numpy.random, ssl, sqlite3, zoneinfo; locale.setlocale(locale.LC_ALL, ''); numpy.random.default_rng(1); zoneinfo.ZoneInfo('UTC')"
        )
    ).passed


SIGNS = {
    "locks of open files": "fcntl.fcntl(open({path!r}), fcntl.F_OFD_SETLK, bytes(32))",
    "who locks": "fcntl.fcntl(open({path!r}), fcntl.F_GETLK, bytes(32))",
    "leases": "fcntl.fcntl(open({path!r}), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "notes of reading": "fcntl.fcntl(open({path!r}), fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
    "dropping from memory": "os.posix_fadvise(os.open({path!r}, 0), 0, 0, os.POSIX_FADV_DONTNEED)",
    "times": "os.utime({path!r})",
    "what is in memory": "b = ctypes.create_string_buffer(9); p = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p)\n"
    "ctypes.CDLL(None).mincore(p.value & ~4095, 4096, b) == 0 or 1 / 0",
    "out of memory": "p = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p)\n"
    "ctypes.CDLL(None).madvise(ctypes.c_void_p(p.value & ~4095), ctypes.c_size_t(4096), 21) == 0 or 1 / 0",
    "memory of the machine": "ctypes.CDLL(None).sysinfo(ctypes.create_string_buffer(512)) == 0 or 1 / 0",
    "threads that come and go": "os.stat(f'/proc/{{os.getppid()}}/task/{{os.getppid()}}')",
    "room on disks": "os.statvfs({path!r})",
}


@pytest.mark.parametrize("way", SIGNS)
def test_no_word_goes_between_programs_by_what_the_kernel_tells(way: str) -> None:
    if way.startswith("threads") and "disk" not in probe().layers:
        pytest.skip("needs mounts")
    assert not attacked(body("import fcntl\n" + SIGNS[way].format(path=os.__file__))).passed


@pytest.mark.parametrize("lock", ["flock", "lockf"])
def test_a_lock_succeeds_and_locks_nothing(lock: str) -> None:
    with open(os.__file__, "rb+" if os.access(os.__file__, os.W_OK) else "rb") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_EX)
        kind = "LOCK_EX" if lock == "flock" else "LOCK_SH"
        assert attacked(body(f"import fcntl; fcntl.{lock}(open({os.__file__!r}), fcntl.{kind} | fcntl.LOCK_NB)")).passed
    source = "import sqlite3\ndef attack():\n    c = sqlite3.connect('f')\n"
    source += "    c.execute('create table t(a)'); c.execute('insert into t values (7)'); c.commit(); c.close()\n"
    assert attacked(source + "    return sqlite3.connect('f').execute('select a from t').fetchall()", "[(7,)]").passed


@pytest.mark.skipif(
    os.geteuid() != 0 or "disk" not in probe().layers, reason="needs mounts, and root to set the time of a file back"
)
def test_reading_leaves_no_access_time() -> None:
    read = Path(os.__file__).with_name("this.py")
    before = read.stat()
    try:
        os.utime(
            read, (5, before.st_mtime)
        )  # older than its change: a file system with relatime notes the next reading
        assert attacked(body(f"return open({str(read)!r}).read(1) == 's'")).passed
        assert read.stat().st_atime == 5
    finally:
        os.utime(read, ns=(before.st_atime_ns, before.st_mtime_ns))


WRITING = {
    "new file": "open({folder!r} + '/new', 'w')",
    "overwrite": "open({path!r}, 'w')",
    "append": "open({path!r}, 'a').write('x')",
    "through a link": "os.symlink({path!r}, 'link'); open('link', 'w')",
    "create through a link": "os.symlink({folder!r} + '/new', 'link'); open('link', 'w')",
    "remove": "os.unlink({path!r})",
    "folder": "os.mkdir({folder!r} + '/new')",
    "replace": "open('mine', 'w'); os.replace('mine', {path!r})",
    "move in": "open('mine', 'w'); os.rename('mine', {folder!r} + '/new')",
    "truncate": "os.truncate({path!r}, 0)",
    "mode": "os.chmod({path!r}, 0o777)",
    "owner": "os.chown({path!r}, 1, 1)",
    "times": "os.utime({path!r}, (1, 1))",
    "attribute": "os.setxattr({path!r}, 'user.x', b'x')",
    "link out": "open('mine', 'w'); os.link('mine', {folder!r} + '/new')",
    "symbolic link out": "os.symlink('x', {folder!r} + '/new')",
    "pipe": "os.mkfifo({folder!r} + '/new')",
    "beside the scratch folder": "open('../new', 'w')",
    "shared memory": "open('/dev/shm/codetune-attack', 'w')",
    "terminal": "open('/dev/tty', 'w')",
    "device": "os.mknod('device', 0o600 | 0o020000, os.makedev(1, 1))",
    "set-user-id": "open('mine', 'w'); os.chmod('mine', 0o4755)",
}


@pytest.mark.parametrize("way", WRITING)
def test_nothing_outside_is_written(way: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "file"
    path.write_text("as it was")
    path.chmod(0o666)
    os.utime(path, (5, 5))
    assert not attacked(body(WRITING[way].format(path=str(path), folder=str(tmp_path)))).passed
    facts = path.stat()
    assert (path.read_text(), facts.st_mtime, stat.S_IMODE(facts.st_mode)) == ("as it was", 5, 0o666)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert not Path("/dev/shm/codetune-attack").exists()


def test_the_scratch_folder_can_be_used_and_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    used = "os.makedirs('a/b'); open('a/b/c', 'w').write('x'); os.mkdir('closed', 0); os.symlink('/', 'root')"
    assert attacked(body(f"{used}; return open('a/b/c').read()"), "'x'").passed
    assert list(tmp_path.glob("codetune-sandbox-*")) == []


@pytest.mark.parametrize("namespaces", [True, False])
def test_no_other_user_knows_or_enters_a_scratch_folder(
    namespaces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "NAMESPACES", namespaces)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config._folders.cache_clear()
    source = "import os, numpy\ndef attack():\n    facts = os.stat('.')\n    return [oct(facts.st_mode), facts.st_gid > 2 * 10**9]"
    root = os.geteuid() == 0
    assert attacked(source, repr(["0o40770" if root else "0o40700", root])).passed
    with jails._scratch() as folder:
        (outer,) = tmp_path.iterdir()
        assert (
            folder.parent == outer and outer.name.startswith(jails.PREFIX) and len(outer.name) > len(jails.PREFIX) + 7
        )
        assert [stat.S_IMODE(one.stat().st_mode) for one in (outer, folder)] == [0o711 if root else 0o700, 0o700]
    assert list(tmp_path.iterdir()) == []
