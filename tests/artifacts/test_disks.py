from __future__ import annotations

from pathlib import Path

import pytest

from artifacts import disks
from artifacts.errors import InputError
from artifacts.store import Store
from flows import cli

MOUNTS = """\
1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
2 1 0:30 / /fuse rw,relatime - {kind} remote {options}
3 1 0:31 / /fuse/disk rw - xfs /dev/sdb rw
4 1 0:32 / /with\\040space rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    "name", ["s3://bucket/runs", "S3://b", "gs://b/x", "hdfs:/x", "file:///tmp/x", "https://a.b/c"]
)
@pytest.mark.parametrize(
    "command", [["runs"], ["prune", "--keep", "1"], ["models"], ["run", "demo"], ["why", "gate", "demo"]]
)
def test_an_address_is_refused_as_a_store(
    name: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if command != ["up"]:
        assert cli.guarded([*command, "--store", name]) == 2
    monkeypatch.setenv("CODETUNE_STORE", name)
    assert cli.guarded(command) == 2
    assert "is an address" in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        Store(Path(name))


@pytest.mark.parametrize("name", ["store", "/x/y", "a:b", "C:", "~/store"])
def test_a_path_is_a_path(name: str) -> None:
    assert disks.folder_of(name) == Path(name).expanduser()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("fuse.s3fs", "rw", True),
        ("fuse.gcsfuse", "rw", True),
        ("fuse", "rw", True),
        ("9p", "rw,trans=virtio", True),
        ("cifs", "rw,vers=3.1.1", True),
        ("smb3", "rw", True),
        ("virtiofs", "rw", True),
        ("nfs", "rw,vers=3,nolock", True),
        ("nfs4", "rw,vers=4.2,local_lock=flock", True),
        ("lustre", "rw", True),
        ("nfs4", "rw,vers=4.2,local_lock=none", False),
        ("lustre", "rw,flock", False),
        ("fuseblk", "rw", False),
        ("ext4", "rw", False),
        ("ceph", "rw", False),
        ("overlay", "rw,lowerdir=/a", False),
    ],
)
def test_a_file_system_whose_locks_stay_on_one_machine_is_told(kind: str, options: str, told: bool) -> None:
    mounts = MOUNTS.format(kind=kind, options=options)
    said = disks.caution(Path("/fuse/store"), mounts)
    assert (said is not None and kind in said) is told
    assert disks.caution(Path("/fuse/disk/store"), mounts) is None
    assert disks.caution(Path("/fuses/store"), mounts) is None
    assert disks.caution(Path("/with space/store"), mounts)


def test_this_machines_own_disk_has_no_caution(tmp_path: Path) -> None:
    assert Store(tmp_path / "store").caution is None
