"""Folders, git repositories and the standard library."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from artifacts import digest
from artifacts.errors import InputError
from tasks.sampling import SamplingConfig
from tasks.sampling.candidates import Row
from tasks.sampling.config import LocalSource
from tasks.sampling.licence_ids import spdx_list
from tasks.sampling.local_source import OpenLocalSource
from tests.repositories import git
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import PROGRAM, everything, programs

MIT = spdx_list().texts["MIT"]


def listed(*paths: Path, **settings: object) -> list[Row]:
    source = LocalSource.model_validate({"paths": [str(path) for path in paths], **settings})
    return [row for batch in OpenLocalSource(source, ("Python",)).batches() for row in batch.rows()]


def repository(folder: Path, files: int, start: int = 0) -> Path:
    (folder / "src").mkdir(parents=True)
    for number, record in enumerate(programs(files)):
        (folder / "src" / f"m{number}.py").write_text(record["content"] + f"# {start}\n")
    (folder / "LICENSE").write_text(MIT)
    git(folder.parent, "init", "-q", folder.name)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def test_only_tracked_files_of_git_repositories_count(tmp_path: Path) -> None:
    folder = repository(tmp_path / "mine", 4)
    (folder / "src" / "scratch.py").write_text("untracked = True\n")
    rows = listed(folder)
    assert len([row for row in rows if row.language == "Python"]) == 4
    assert {row.license for row in rows} == {"MIT"} and len(rows[0].revision) == 40


def test_git_repositories_below_a_folder_are_told_apart(tmp_path: Path, sample: Sample) -> None:
    for number, name in enumerate(("one", "two", "three")):
        repository(tmp_path / "work" / name, 4, number)
    (tmp_path / "work" / "one" / "src" / "m0.py").write_text(PROGRAM.format("changed"))
    result = sample(source={"kind": "local", "paths": [str(tmp_path / "work")]})
    rows = everything(result)
    assert {row["repo"] for row in rows} == {"one", "two", "three"} and "by git" in result.source
    assert [row["revision"].endswith("-dirty") for row in rows] == [row["repo"] == "one" for row in rows]


def test_a_single_repository_is_divided_by_its_folders(tmp_path: Path, sample: Sample) -> None:
    folder = tmp_path / "app"
    for number, name in enumerate(("core", "core/deep", "core/wide", "web")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for record in programs(4):
            (folder / name / record["path"]).write_text(record["content"] + f"# {number}\n")
    result = sample(source={"kind": "local", "paths": [str(folder)]})
    assert {row["repo"] for row in everything(result)} == {"app/core", "app/core/deep", "app/core/wide", "app/web"}


def test_litter_links_and_excluded_files_are_left_out(code: Path, tmp_path: Path) -> None:
    for name in ("__pycache__", "site-packages", ".venv", "node_modules", "env"):
        (code / name).mkdir()
        (code / name / "litter.py").write_text("x = 1\n")
    (code / "env" / "pyvenv.cfg").touch()
    (code / "link.py").symlink_to(code / "textwrap.py")
    (code / "loop").symlink_to(code)
    paths = {row.path for row in listed(code, exclude=["json/*", "*/mime/*"])}
    assert "textwrap.py" in paths and "email/charset.py" in paths
    assert not [path for path in paths if "litter" in path or "link" in path or "json" in path or "/mime/" in path]


def test_a_single_path_needs_no_list(code: Path) -> None:
    assert LocalSource.model_validate({"paths": str(code)}) == LocalSource.model_validate({"paths": [str(code)]})


def test_single_files_and_overlapping_paths_count_once(code: Path) -> None:
    rows = listed(code / "textwrap.py", code, code / "json")
    assert len({row.path for row in rows if "textwrap" in row.path}) == 1
    assert sum(row.path.endswith("decoder.py") for row in rows) == 1


def test_equal_folder_names_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src" / "m.py").write_text(PROGRAM.format(name))
    assert {row.repo for row in listed(tmp_path / "a/src", tmp_path / "b/src", repositories="path")} == {
        "a/src",
        "b/src",
    }


def test_standard_library_has_a_repository_per_module(sample: Sample) -> None:
    source = {"kind": "local", "paths": ["stdlib"], "repositories": "top-level", "exclude": ["test/*", "idlelib/*"]}
    result = sample(source=source, files=60, held_out=0.2)
    rows = everything(result)
    assert len(rows) == 60 and result.held_out.repositories > 3 and result.licenses == {"PSF-2.0": 60}
    assert all(row["repo"].startswith("stdlib/") and row["revision"].startswith("python-3.") for row in rows)
    assert not any("site-packages" in row["path"] or "__pycache__" in row["path"] for row in rows)


def test_missing_and_empty_paths_are_refused(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/nowhere ") as refusal:
        sample(source={"kind": "local", "paths": [str(tmp_path / "nowhere")]})
    assert refusal.value.field == "sampling.source.paths"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"/empty\n") as refusal:
        sample(source={"kind": "local", "paths": [str(tmp_path / "empty")]})
    assert refusal.value.field == "sampling.source.paths" and "`exclude`" in str(refusal.value.remedy)


def test_names_that_are_no_text_are_kept_readable(tmp_path: Path, sample: Sample) -> None:
    for number in range(3):
        folder = tmp_path / "odd" / f"p{number}"
        folder.mkdir(parents=True)
        Path(bytes(folder).decode() + "/caf\udce9.py").write_text(PROGRAM.format(number))
    result = sample(source={"kind": "local", "paths": [str(tmp_path / "odd")]})
    assert {row["path"] for row in everything(result)} == {f"p{n}/caf?.py" for n in range(3)}


def test_configuration_defaults_to_the_reference_job() -> None:
    config = SamplingConfig()
    assert config.source.kind == "github-code" and config.files == 2000 and config.languages == ("Python",)


def test_installed_packages_by_the_name_they_are_imported_by(tmp_path: Path) -> None:
    source = LocalSource(paths=("package:httpx", "package:filelock"), repositories="path")
    opened = OpenLocalSource(source, ("Python",))
    repos = {row.repo for batch in opened.batches() for row in batch.rows()}
    assert repos == {"httpx", "filelock"} and "package:" not in opened.describe()
    for name in ("no_such_thing", "__main__", "sys"):
        with pytest.raises(InputError, match=f"'{name}'") as refusal:
            OpenLocalSource(LocalSource(paths=(f"package:{name}",)), ("Python",))
        assert refusal.value.field == "sampling.source.paths" and "installed package" in str(refusal.value.remedy)


def test_a_folder_of_an_installed_package(tmp_path: Path) -> None:
    source = LocalSource(paths=("package:pygments/lexers",), repositories="top-level", exclude=("_*",))
    opened = OpenLocalSource(source, ("Python",))
    rows = [row for batch in opened.batches() for row in batch.rows() if row.language == "Python"]
    assert {"lexers/ada", "lexers/x10"} < {row.repo for row in rows} and not any(row.path[0] == "_" for row in rows)
    assert len({row.repo for row in rows}) == len(rows) and opened.describe().startswith("local: pygments/lexers (")


@pytest.mark.parametrize("below", ["..", "lexers/../..", "no_such_folder", "/etc", "lexers//etc"])
def test_what_is_no_folder_of_an_installed_package_is_refused(below: str) -> None:
    name = f"package:pygments/{below}"
    with pytest.raises(InputError, match=f"^sampling.source.paths: {name} ") as refusal:
        OpenLocalSource(LocalSource(paths=(name,)), ("Python",))
    assert "package:NAME/FOLDER" in str(refusal.value.remedy)


def test_of_each_file_little_is_in_memory(tmp_path: Path) -> None:
    """There may be a million."""
    held = []
    for count in (50, 550):
        folder = tmp_path / f"{count}"
        for number in range(count):
            file = folder / f"r{number % 7}" / f"module_{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x = 1\n")
        source = LocalSource(paths=(str(folder),), license="MIT")
        OpenLocalSource(source, ("Python",))  # imports
        sizes = []
        for _ in range(2):  # in one of them the table of all names of the interpreter, megabytes by then, may grow
            tracemalloc.start()
            opened = OpenLocalSource(source, ("Python",))
            sizes.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
        held.append(min(sizes))
        sha256 = hashlib.sha256(b"x = 1\n").hexdigest()
        # a source's fingerprint decides about what was made of it before
        facts = [[row.repo, row.path, "MIT", "", sha256] for batch in opened.batches() for row in batch.rows()]
        assert opened.fingerprint() == digest.of_json([facts, [], opened.describe()])
    assert (held[1] - held[0]) / 500 < 600
