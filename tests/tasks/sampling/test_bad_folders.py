"""Folders of any kind end in a list of files or in one message."""

from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path

import pytest

from artifacts.errors import InputError
from tasks.sampling import SamplingConfig, source_fingerprint
from tasks.sampling.config import LocalSource
from tasks.sampling.local_source import OpenLocalSource
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import PROGRAM, dropped, everything, make_socket


def opened(*paths: object, **settings: object) -> OpenLocalSource:
    source = LocalSource.model_validate({"paths": [str(path) for path in paths], "tracked_only": False, **settings})
    return OpenLocalSource(source, ("Python",), 1 << 20)


def names(source: OpenLocalSource) -> list[str]:
    return [row.path for batch in source.batches() for row in batch.rows()]


def write(folder: Path, name: str, text: str | None = None) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(PROGRAM.format(name) if text is None else text)
    return folder / name


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for number in range(6):
        write(tmp_path / "code", f"part{number}/a.py")
    return tmp_path / "code"


def test_only_regular_files_are_taken(code: Path) -> None:
    os.mkfifo(code / "pipe.py")
    make_socket(code / "socket.py")
    (code / "device.py").symlink_to("/dev/zero")
    (code / "loop.py").symlink_to(code / "loop.py")
    (code / "around").symlink_to(code)
    (code / "gone.py").symlink_to(code / "nowhere.py")
    (code / "folder.py").mkdir()
    os.mkfifo(code / "part0" / ".gitignore")
    started = time.monotonic()
    source = opened(code)
    assert len(names(source)) == 6 and source.fingerprint()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_source_that_is_no_folder_and_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        make_socket(path)
    given = Path("/dev/zero") if kind == "device" else path
    with pytest.raises(InputError, match=f"{given} ") as refusal:
        opened(given)
    assert refusal.value.field == "sampling.source.paths" and "folders or files" in str(refusal.value.remedy)


def test_1200_nested_folders(code: Path) -> None:
    deepest, here = code, os.open(code, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, deepest = deeper, deepest / "d"
    file = os.open("a.py", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"x = 'deep'\n")
    os.close(file)
    assert len(names(opened(code))) == 7
    for _ in range(1200):  # what pytest does afterwards is recursive
        for entry in deepest.iterdir():
            entry.unlink() if entry.is_file() else entry.rmdir()
        deepest = deepest.parent


def test_a_path_beyond_the_systems_limit_is_counted(code: Path) -> None:
    made, here = [], os.open(code, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        made.append(here)
        here = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
    source = opened(code)
    assert len(names(source)) == 6 and "cannot be listed 1" in source.describe()
    for parent in reversed(made):
        os.rmdir("d" * 200, dir_fd=parent)


def test_a_folder_whose_own_name_is_no_text(code: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Path(os.fsdecode(b"caf\xe9"))
    monkeypatch.chdir(code.rename(code.parent / odd))
    result = sample(source={"kind": "local", "paths": ["."]})
    assert result.model_dump_json() and len(everything(result)) == 6
    monkeypatch.chdir(code.parent)


def test_what_is_too_large_is_not_read(code: Path, sample: Sample) -> None:
    (code / "large.py").touch()
    os.truncate(code / "large.py", 10 << 30)
    started = time.monotonic()
    settings = {"source": {"kind": "local", "paths": [str(code)]}}
    source_fingerprint(SamplingConfig.model_validate(settings))
    assert dropped(sample(**settings), "content") == {"too large": 1}
    assert time.monotonic() - started < 10


def test_files_that_vanish_or_grow_meanwhile_are_dropped(code: Path) -> None:
    source = opened(code)
    (batch,) = source.batches()
    (code / "part0" / "a.py").unlink()
    (code / "part1" / "a.py").write_text("x" * (3 << 20))
    (code / "part2" / "a.py").unlink()
    os.mkfifo(code / "part2" / "a.py")
    contents = list(batch.contents(range(6)))
    assert contents[0] is None and contents[2] is None and all(contents[3:])
    assert contents[1] is not None and len(contents[1]) == (1 << 20) + 1
    assert source.fingerprint()


def test_one_folder_by_several_names_counts_once(code: Path) -> None:
    (code.parent / "link").symlink_to(code)
    roundabout = code / "part0" / ".."
    assert (
        len(names(opened(code, code, roundabout, code.parent / "link", code / "part1", code / "part1" / "a.py"))) == 6
    )


def test_a_name_of_255_bytes_is_taken(code: Path) -> None:
    write(code, "n" * 252 + ".py")
    assert len(names(opened(code))) == 7


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["part0/"], 6),
        (["part0"], 6),
        (["**/deep/**"], 6),
        (["deep/"], 6),
        (["/a.py"], 7),
        (["a.py"], 1),
        (["*.py"], 0),
        (["part?/*.py", "!part3/a.py"], 2),
        (["# part0/", "part[0-2]/"], 4),
        (["*"], 0),
    ],
)
def test_patterns_are_those_of_gitignore(patterns: list[str], left: int, code: Path) -> None:
    write(code, "part5/deep/b.py")
    if left == 0:
        with pytest.raises(InputError, match="excluded files 7"):
            opened(code, exclude=patterns)
    else:
        source = opened(code, exclude=patterns)
        assert len(names(source)) == left
        assert left == 7 or f"excluded files {7 - left}" in source.describe()


def test_a_pattern_that_is_none_is_refused(code: Path) -> None:
    for pattern in ("[z-a].py", "a/[9-0]/", "part1/" + "*a" * 12):
        with pytest.raises(InputError, match="pattern") as refused:
            opened(code, exclude=["part0/", pattern])
        assert refused.value.field == "sampling.source.exclude" and refused.value.remedy


def test_a_pattern_that_fits_nothing_is_told(code: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        opened(code, exclude=["part0/", "env/", "**/env/**", "*.pyx"])
    told = [record.args[0] for record in caplog.records if isinstance(record.args, tuple) and record.args]
    assert told == ["env/", "**/env/**", "*.pyx"]


def test_what_a_sample_says_of_its_source_is_part_of_its_key(code: Path) -> None:
    def key(**settings: object) -> str:
        return opened(code, **settings).fingerprint()

    seen = {key()}
    for change in (
        lambda: write(code, "part0/b.go"),
        lambda: write(code, "env/conda-meta/history"),
        lambda: write(code, "notes.txt"),
        lambda: write(code, "part0/c.py"),
        lambda: write(code, "part0/c.py", "changed = 1\n"),
    ):
        change()
        assert key() not in seen
        seen.add(key())
    assert key() in seen and key(exclude=["part0/b.go"]) not in seen


def tree(folder: Path, seed: int) -> None:
    """A folder with things in it that a seed chooses, beside two good files."""
    chance = random.Random(seed)
    for name in ("good/a.py", "better/b.py")[: chance.randrange(4)]:
        write(folder, name)
    for number in range(chance.randrange(3, 25)):
        parts = [
            chance.choice(("a", "b", "src", "env", "lib", "target", "x" * 200, "caf\udce9", "é", "-rf", "a b", "..."))
            for _ in range(chance.randrange(0, 5))
        ]
        here = folder.joinpath(*parts)
        try:
            here.mkdir(parents=True, exist_ok=True)
            path = here / (chance.choice(("a", "b", "\n", "*", "LICENSE", "REUSE", "\udcff", "[x]")) + str(number))
            path = path.with_name(path.name + chance.choice((".py", ".go", "", ".toml", ".license")))
            match chance.randrange(7):
                case 0:
                    os.mkfifo(path)
                case 1:
                    path.symlink_to(chance.choice((folder, path, "/dev/zero", "nowhere", "..")))
                case 2:
                    path.touch()
                    os.truncate(path, 1 << chance.randrange(20, 41))
                case 3:
                    path.write_bytes(chance.randbytes(chance.randrange(3000)))
                case _:
                    path.write_text(PROGRAM.format(number), encoding="utf-8")
        except OSError:
            continue


def walk_all(tmp_path: Path, sample: Sample, seeds: range) -> int:
    """How many of some folders gave a sample; the others gave a message."""
    given = 0
    for seed in seeds:
        folder = tmp_path / f"tree{seed}"
        folder.mkdir()
        tree(folder, seed)
        try:
            result = sample(source={"kind": "local", "paths": [str(folder)], "repositories": "folder"})
            assert result.model_dump_json() and all(row["content"] for row in everything(result))
            given += 1
        except InputError as error:
            assert error.remedy and str(error).encode()
    return given


def test_folders_made_by_chance(tmp_path: Path, sample: Sample) -> None:
    assert walk_all(tmp_path, sample, range(25)) >= 8


@pytest.mark.slow
@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes; run it with -m slow")
def test_many_folders_made_by_chance(tmp_path: Path, sample: Sample) -> None:
    assert walk_all(tmp_path, sample, range(1000, 1400)) >= 120
