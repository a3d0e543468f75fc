"""Attacks on files: reading what is secret, writing what is not the program's."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

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
    assert verdict.outcome == "error" and "Permission" in verdict.detail, verdict


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
