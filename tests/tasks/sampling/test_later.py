"""Held out by history: releases, commits, and the way that is taken where there is a choice."""

from __future__ import annotations

import logging
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import InputError
from artifacts.schema import DatasetSample
from tasks.sampling import SamplingConfig, later, source_fingerprint
from tests.repositories import commit, everything_in, git
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import bytes_of, dropped, everything, rows

WORDS = "amber birch cedar delta ember fjord grove heron islet jetty knoll larch maple north ocean pearl quartz reef"


def program(number: int, functions: int = 6) -> str:
    """A file like no other."""
    chosen = random.Random(number).choices(WORDS.split(), k=3 * functions)
    parts = [
        f"def {a}_{b}_{number}({c}):\n    return {c} + {number}\n" for a, b, c in zip(*[iter(chosen)] * 3, strict=True)
    ]
    return "\n".join(parts)


def grown(number: int) -> str:
    """The same file later."""
    return program(number) + f"\ndef later_{number}(value):\n    return value * {number} - {number + 7}\n"


BEFORE = {f"pkg/m{number}.py": program(number) for number in range(8)}
AFTER = {**BEFORE, **{f"pkg/m{number}.py": grown(number) for number in range(7)}}
"""Seven of the files have two lines more, and one is as it was."""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def history(folder: Path) -> Path:
    """A repository with ten commits: files, eight notes, and files that have grown."""
    commit(folder, BEFORE)
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    return commit(folder, AFTER)


def local(*paths: Path, **settings: Any) -> dict[str, Any]:
    return {"kind": "local", "paths": [str(path) for path in paths], **settings}


def asked(sample: DatasetSample) -> dict[str, list[str]]:
    """The texts that are asked for, by unit."""
    found: dict[str, list[str]] = {}
    for row in rows(sample, "held_out"):
        for one in row["added"]:
            found.setdefault(one["unit"], []).append(row["content"][one["start"] : one["end"]])
    return found


EXPECTED = {
    f"mine/pkg/m{number}.py": [f"def later_{number}(value):\n    return value * {number} - {number + 7}\n"]
    for number in range(7)
}


def test_files_are_learned_as_they_were_and_what_commits_added_is_asked_for(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    before = everything_in(folder)
    found = sample(source=local(folder), held_out_by="commit-date")
    assert everything_in(folder) == before
    assert {row["path"]: row["content"] for row in rows(found, "train")} == BEFORE
    cut = git(folder, "rev-parse", "HEAD~1")
    assert {row["revision"] for row in rows(found, "train")} == {cut}
    assert asked(found) == EXPECTED
    assert (found.held_out_by, found.units, found.added_lines) == ("commit-date", 7, 14)
    assert "the newest 1 of 10 commits" in found.source and "14 lines added later to 7 files" in found.summary
    assert "of 1 repository" in found.summary and "(1 repository," in found.source
    assert dropped(found, "choice") == {"nothing was added later": 1}


def test_the_same_is_said_again_and_something_else_of_another_cut(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    settings = {"source": local(folder), "held_out_by": "commit-date"}
    first, again = sample(**settings), sample(**settings)
    assert bytes_of(first) == bytes_of(again)
    prints = [
        source_fingerprint(SamplingConfig.model_validate({**settings, **more})) for more in ({}, {"held_out": 0.5})
    ]
    assert prints[0] != prints[1] and source_fingerprint(SamplingConfig.model_validate(settings)) == prints[0]
    (folder / "pkg" / "m7.py").write_text(grown(7))
    assert asked(sample(**settings)).keys() - EXPECTED.keys() == {"mine/pkg/m7.py"}, "uncommitted lines are the newest"


def test_releases_stand_for_history(tmp_path: Path, sample: Sample) -> None:
    """The same files give the same lines; older releases than the last are left out."""
    write(tmp_path / "all" / "mine-1.9", {name: text + "# older\n" for name, text in BEFORE.items()})
    write(tmp_path / "all" / "mine-1.10", BEFORE)
    write(tmp_path / "all" / "mine-2.0rc1", AFTER)
    write(tmp_path / "all" / "other", {"x.py": program(90)})
    found = sample(source=local(tmp_path / "all"), held_out_by="release")
    assert asked(found) == EXPECTED
    learned = {(row["repo"], row["path"], row["revision"]) for row in rows(found, "train")}
    assert learned == {("mine", name, "1.10") for name in BEFORE} | {("all/other", "other/x.py", "")}
    assert "mine 1.10 → 2.0rc1" in found.source and "files of other releases 8" in found.source
    apart = sample(
        source=local(*(tmp_path / "all" / name for name in ("mine-1.10", "mine-2.0rc1"))), held_out_by="auto"
    )
    assert asked(apart) == EXPECTED and apart.held_out_by == "release"


def test_moved_files_and_moved_blocks_are_not_new(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    git(folder, "mv", "pkg", "src")
    extra = "def extra():\n    return 'only this line is new'\n"
    moved = {f"src/m{number}.py": grown(number) + f"\n{extra}# {number}\n" for number in range(6)}
    # its second file holds what stands in the first: it was moved there
    commit(folder, {**moved, "src/m6.py": "import os\n" + program(3)})
    found = asked(sample(source=local(folder), held_out_by="commit-date"))
    assert {unit: texts for unit, texts in found.items() if unit != "mine/src/m6.py"} == {
        f"mine/src/m{number}.py": [f"{extra}# {number}\n"] for number in range(6)
    }
    assert not any("amber" in text or "return" in text for text in found.get("mine/src/m6.py", []))


def test_a_merge_counts_when_it_was_merged(tmp_path: Path, sample: Sample) -> None:
    folder = commit(tmp_path / "mine", BEFORE)
    git(folder, "switch", "-q", "-c", "side")
    commit(folder, AFTER)  # older than all that follow
    git(folder, "switch", "-q", "main")
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    git(folder, "merge", "-q", "--no-ff", "--no-edit", "side")
    found = sample(source=local(folder), held_out_by="commit-date")
    assert asked(found) == EXPECTED and "the newest 1 of 10 commits" in found.source


def test_dates_that_run_backwards_do_not_matter(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = history(tmp_path / "mine")
    tree = git(folder, "rev-parse", "HEAD^{tree}")
    parent = git(folder, "rev-parse", "HEAD~1")
    text = f"tree {tree}\nparent {parent}\nauthor t <t@x> 1 +0000\ncommitter t <t@x> 1 +0000\n\nlong ago\n"
    git(folder, "reset", "-q", "--hard", git(folder, "hash-object", "-t", "commit", "-w", "--stdin", text=text))
    assert asked(sample(source=local(folder), held_out_by="commit-date")) == EXPECTED


def test_a_shallow_clone_has_the_commits_that_it_has(tmp_path: Path, sample: Sample) -> None:
    history(tmp_path / "origin")
    for depth in (1, 3):
        git(tmp_path, "clone", "-q", f"--depth={depth}", f"file://{tmp_path}/origin", f"{depth}/mine")
    assert asked(sample(source=local(tmp_path / "3" / "mine"), held_out_by="commit-date")) == EXPECTED
    with pytest.raises(InputError) as refused:
        sample(source=local(tmp_path / "1" / "mine"), held_out_by="commit-date")
    assert "no git repository of the source has two commits" in refused.value.problem
    assert "--unshallow" in str(refused.value.remedy)


def test_a_partial_clone_is_refused(tmp_path: Path, sample: Sample) -> None:
    git(history(tmp_path / "origin"), "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{tmp_path}/origin", "mine")
    with pytest.raises(InputError, match=r"partial clone|cannot be read") as refused:
        sample(source=local(tmp_path / "mine"), held_out_by="commit-date")
    assert refused.value.field == "sampling.source.paths" and "in full" in str(refused.value.remedy)


def test_more_commits_are_taken_where_the_newest_say_too_little(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    commit(folder, {"pkg/m7.py": grown(7)})
    found = sample(source=local(folder), held_out_by="commit-date")
    assert "the newest 2 of 11 commits" in found.source and found.units == 8


def test_nothing_newer_is_refused_before_anything_is_trained(tmp_path: Path, sample: Sample) -> None:
    folder = commit(tmp_path / "mine", BEFORE)
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    with pytest.raises(InputError) as refused:
        sample(source=local(folder), held_out_by="commit-date")
    assert refused.value.problem == "no later commit added lines of code"
    assert refused.value.field == "sampling.held_out_by" and "more commits" in str(refused.value.remedy)


def changes(folder: Path, count: int = 7) -> Path:
    """A repository with sixty empty commits, and then some that change three files each in the same way."""
    commit(folder, BEFORE)
    for number in range(60):
        git(folder, "commit", "-q", "--allow-empty", "-m", str(number))
    files = dict(BEFORE)
    for number in range(count):
        names = [f"pkg/m{(number + step) % 8}.py" for step in range(3)]
        files |= {name: files[name] + f"\n{change(number)}" for name in names}
        commit(folder, {name: files[name] for name in names})
    return folder


def change(number: int) -> str:
    return f"def change_{number}(value):\n    return value * {number} - {number + 7}\n"


def test_what_one_commit_changes_is_one_part(tmp_path: Path, sample: Sample) -> None:
    folder = changes(tmp_path / "mine")
    found = sample(source=local(folder), held_out_by="commit")
    newest = git(folder, "rev-list", "--reverse", "HEAD").split()[-7:]
    assert asked(found) == {f"mine {name[:12]}": [change(number)] * 3 for number, name in enumerate(newest)}
    assert (found.held_out_by, found.units, found.added_lines) == ("commit", 7, 42)
    assert sample(source=local(folder), held_out_by="auto").held_out_by == "commit"
    below = sample(source=local(folder / "pkg"), held_out_by="commit")
    assert [*asked(below)] == [*asked(found)]


def test_a_merge_is_one_part_and_so_is_what_is_not_committed(tmp_path: Path, sample: Sample) -> None:
    folder = changes(tmp_path / "mine", 4)
    git(folder, "switch", "-q", "-c", "side")
    commit(folder, {"pkg/x.py": program(50)})
    commit(folder, {"pkg/x.py": program(50) + program(51), "pkg/y.py": program(52)})
    git(folder, "switch", "-q", "main")
    git(folder, "mv", "pkg/m7.py", "pkg/moved.py")
    commit(folder, {"pkg/moved.py": BEFORE["pkg/m7.py"] + change(90)})
    git(folder, "merge", "-q", "--no-ff", "--no-edit", "side")
    (folder / "pkg" / "x.py").write_text(program(50) + "\n" + change(91) + program(51))
    found = asked(sample(source=local(folder), held_out_by="commit"))
    merge, move = (f"mine {git(folder, 'rev-parse', name)[:12]}" for name in ("HEAD", "HEAD~1"))
    assert len(found) == 7 and found[move] == [change(90)]
    assert sorted(found[merge]) == sorted([program(50), program(51), program(52)])
    assert found["mine: no commit"] == [change(91)]


def test_of_a_repository_that_began_later_every_commit_is_one_part(tmp_path: Path, sample: Sample) -> None:
    changes(tmp_path / "old", 2)
    time.sleep(1.1)  # commits have whole seconds
    for number in range(5):
        commit(tmp_path / "young", {f"x{number}.py": program(70 + number)})
    found = sample(source=local(tmp_path / "old", tmp_path / "young"), held_out_by="commit")
    assert sorted(unit.split()[0] for unit in asked(found)) == ["old"] * 2 + ["young"] * 5


def test_lines_of_files_that_git_does_not_show_have_their_commit(tmp_path: Path, sample: Sample) -> None:
    folder = changes(tmp_path / "mine", 7)
    plain = asked(sample(source=local(folder), held_out_by="commit"))
    (folder / ".gitattributes").write_text("*.py -diff\n")
    assert asked(sample(source=local(folder), held_out_by="commit")) == plain and len(plain) == 7


def test_what_is_tried_in_vain_notes_no_number_of_files(
    tmp_path: Path, sample: Sample, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert sample(source=local(history(tmp_path / "mine")), held_out_by="auto").held_out_by == "commit-date"
    assert sum("that pass the filters" in one.getMessage() for one in caplog.records) == 1


def test_of_many_changed_files_only_as_many_as_are_wanted_are_kept(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x-1.0", {f"pkg/m{number}.py": program(number, 2) for number in range(200)})
    write(tmp_path / "x-1.1", {f"pkg/m{number}.py": program(number, 2) + change(number) for number in range(200)})
    most, trim = list[int](), later._trim

    def look(found: list[tuple[bytes, later.LaterFile]], files: int) -> int:
        assert not any(one.known.content for _, one in found), "contents are on disk"
        most.append(len(found))
        return trim(found, files)

    monkeypatch.setattr(later, "_trim", look)
    results = []
    for slack in (500, 7):
        monkeypatch.setattr(later, "_SLACK", slack)
        results.append(sample(source=local(tmp_path), held_out_by="release", files=40))
    assert len({bytes_of(one) for one in results}) == 1 and results[0].held_out.files == 40
    assert [dropped(one, "choice")["not among the first of the seeded order"] for one in results] == [320, 320]
    assert most[0] == 200 and max(most[1:]) <= 40 + 7 + 64
    assert {row["path"] for row in rows(results[0], "held_out")} != {f"pkg/m{number}.py" for number in range(40)}


def test_too_few_commits_are_no_parts(tmp_path: Path, sample: Sample) -> None:
    with pytest.raises(InputError) as refused:
        sample(source=local(history(tmp_path / "mine")), held_out_by="commit")
    assert "only 5 of 10 commits are the newest 50%" in refused.value.problem
    assert refused.value.problem.endswith("(sampling.held_out=0.1 was widened to 0.5)")
    assert "commit-date" in str(refused.value.remedy)
    with pytest.raises(InputError) as refused:
        sample(source=local(tmp_path / "mine"), held_out_by="commit", held_out=0.5)
    assert "newest 50%" in refused.value.problem and "widened" not in refused.value.problem
    with pytest.raises(InputError) as refused:  # it is not for the share
        sample(source=local(write(tmp_path / "plain", BEFORE)), held_out_by="commit")
    assert "widened" not in refused.value.problem
    assert sample(source=local(tmp_path / "mine"), held_out_by="auto").held_out_by == "commit-date"


def test_of_two_checkouts_one_is_taken(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    git(folder, "worktree", "add", "-q", "../other", "HEAD~1")
    found = sample(source=local(tmp_path), held_out_by="commit-date")
    assert asked(found) == EXPECTED and "files of other checkouts 9" in found.source


def test_what_is_left_out_is_left_out_of_both_sides(tmp_path: Path, sample: Sample) -> None:
    folder = history(tmp_path / "mine")
    commit(folder, {"notes.md": "last\n"})
    found = sample(source=local(folder, exclude=["m7.py"]), held_out_by="commit-date", held_out=0.2)
    assert "pkg/m7.py" not in {row["path"] for row in everything(found)} and found.units == 7
    below = sample(source=local(folder / "pkg"), held_out_by="commit-date", held_out=0.2)
    assert {row["path"] for row in rows(below, "train")} == {name.removeprefix("pkg/") for name in BEFORE}


def test_a_secret_that_was_there_before_is_no_addition(tmp_path: Path, sample: Sample) -> None:
    """It is replaced on both sides."""
    secret = 'token = "ghp_' + "a1B2" * 9 + '"\n'
    for version, files in (("1.0", BEFORE), ("1.1", AFTER)):
        write(tmp_path / f"mine-{version}", {name: secret + text for name, text in files.items()})
    found = sample(source=local(tmp_path), held_out_by="release", secrets="replace", near_duplicates=0.7)
    assert asked(found) == EXPECTED and "ghp_" not in str(everything(found))


def test_auto_takes_what_gives_an_interval(tmp_path: Path, sample: Sample) -> None:
    for number in range(30):
        write(tmp_path / "many" / f"p{number}", {"m.py": program(number)})
        write(tmp_path / "one" / f"part{number}", {"a.py": program(number), "b.py": program(100 + number)})
    write(tmp_path / "one", {"pyproject.toml": ""})
    history(tmp_path / "mine")
    chosen = {
        name: sample(source=local(tmp_path / name), held_out_by="auto", held_out=0.2)
        for name in ("many", "one", "mine")
    }
    assert {name: one.held_out_by for name, one in chosen.items()} == {
        "many": "repository",
        "one": "folder",
        "mine": "commit-date",
    }
    folders = chosen["one"]
    assert folders.units and folders.units >= 6 and "folders" in folders.summary
    assert all(row["repo"].endswith("/") for row in everything(folders))
    assert not {row["repo"] for row in rows(folders, "train")} & {row["repo"] for row in rows(folders, "held_out")}


@pytest.mark.parametrize("shape", ["package", "scripts", "files", "in a project", "of one checkout"])
def test_parts_of_one_thing_are_no_repositories(tmp_path: Path, sample: Sample, shape: str) -> None:
    """A module of a package, a script, a file that was named, a folder of a project."""
    parts = {f"part{number}/m.py": program(number) for number in range(12)}
    loose = {f"m{number}.py": program(100 + number) for number in range(30)}
    folder = tmp_path / "mine" / "code"
    match shape:
        case "package":
            write(folder, {"__init__.py": "", **parts})
        case "scripts":
            write(folder, loose | dict([*parts.items()][:4]))
        case "files":
            write(folder, loose)
        case "in a project":
            write(folder, parts)
            write(folder.parent, {"setup.py": ""})
        case "of one checkout":
            commit(folder, parts)
    paths = sorted(folder.glob("[mp]*")) if shape in ("files", "of one checkout") else [folder]
    with suppress(InputError):
        assert sample(source=local(*paths), held_out_by="auto").held_out_by == "folder"
    beside = write(tmp_path / "plain", {**parts, "stray.py": program(50)})
    assert sample(source=local(beside), held_out_by="auto", held_out=0.5).held_out_by == "repository"


def test_folders_are_held_out_until_an_interval_is_possible(tmp_path: Path, sample: Sample) -> None:
    for number in range(24):
        write(tmp_path / f"part{number}", {"a.py": program(number), "b.py": program(100 + number)})
    found = sample(source=local(tmp_path), held_out_by="folder", held_out=0.05)
    assert found.units == 6 and found.held_out.files == 12


def test_auto_says_of_every_way_why_not(tmp_path: Path, sample: Sample) -> None:
    folder = commit(tmp_path / "mine", {f"p{number}/m.py": program(number) for number in range(4)})
    with pytest.raises(InputError) as refused:
        sample(source=local(folder), held_out_by="auto")
    said = refused.value.problem
    first, *ways = said.split("\n")
    assert "no verdict" in first and [line.strip().split(":")[0] for line in ways] == [
        "by release",
        "by repository",
        "by commit and commit-date",
        "by folder",
    ]
    assert said.count("no git repository of the source has two commits") == 1
    remedy = str(refused.value.remedy)
    assert "older release" in remedy and "sampling.held_out_by=repository" in remedy


@pytest.mark.parametrize("files", [1, 8])
def test_what_no_run_can_divide_is_not_offered_a_run_without_a_verdict(
    files: int, tmp_path: Path, sample: Sample
) -> None:
    for number in range(files):
        write(tmp_path / f"p{number}", {"m.py": program(1) + f"# {number}\n"})
    with pytest.raises(InputError) as refused:
        sample(source=local(tmp_path), held_out_by="auto", near_duplicates=0.7)
    assert "held_out_by=repository" not in str(refused.value.remedy) and "path" in str(refused.value.remedy)
    with pytest.raises(InputError):
        sample(source=local(tmp_path), near_duplicates=0.7)


def test_what_only_moved_is_of_no_commit_beside_those_that_there_are(tmp_path: Path, sample: Sample) -> None:
    """Of two ways to tell what was added, git takes the other."""
    kept = [f"moved_{number} = {number}\n" for number in range(6)]
    block = "".join(f"block_{number} = {number}\n" for number in range(5))
    new = [f"def inserted_{number}(value, other):\n    return value * {number} + other\n" for number in range(6)]
    folder = commit(tmp_path / "mine", BEFORE | {"turned.py": block + "".join(kept)})
    for number in range(6):
        commit(folder, {"notes.md": f"{number}\n"})
    commit(folder, {"turned.py": "".join(map("".join, zip(kept, new, strict=True))) + block})
    for number in range(6):
        commit(folder, {f"pkg/m{number}.py": grown(number)})
    found = sample(source=local(folder), held_out_by="commit", held_out=0.5)
    assert found.units == 7 and not [unit for unit in asked(found) if "no commit" in unit]
    assert any("inserted_0" in text for texts in asked(found).values() for text in texts)


def test_as_many_as_half_of_the_commits_are_held_out(tmp_path: Path, sample: Sample) -> None:
    folder = commit(tmp_path / "mine", BEFORE)
    for number in range(5):
        commit(folder, {"notes.md": f"{number}\n"})
    for number in range(6):
        commit(folder, {f"pkg/m{number}.py": grown(number)})
    found = sample(source=local(folder), held_out_by="commit", held_out=0.1)
    assert (found.units, "the newest 6 of 12 commits" in found.source) == (6, True)


def test_a_run_without_a_verdict_is_told_so_at_once(
    tmp_path: Path, sample: Sample, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        write(tmp_path / f"p{number}", {"m.py": program(number)})
    with caplog.at_level(logging.WARNING):
        found = sample(source=local(tmp_path))
    assert found.units == 1 and "the run will end without a verdict" in caplog.text and "held_out_by" in caplog.text


@pytest.mark.parametrize("way", ["folder", "release", "commit", "commit-date"])
def test_other_sources_have_no_history(way: str) -> None:
    with pytest.raises(ValidationError, match="needs a source of kind local"):
        SamplingConfig.model_validate({"held_out_by": way})


def test_no_git_is_said(tmp_path: Path, sample: Sample) -> None:
    write(tmp_path / "plain", BEFORE)
    with pytest.raises(InputError, match="no source path is a git repository"):
        sample(source=local(tmp_path / "plain"), held_out_by="commit-date")
    shutil.rmtree(tmp_path / "plain")


@pytest.mark.parametrize("way", ["commit-date", "commit"])
def test_a_history_with_two_beginnings(tmp_path: Path, sample: Sample, way: str) -> None:
    """What a root without a parent brought counts when it was merged, and is learned from once it is older."""
    folder = commit(tmp_path / "mine", BEFORE)
    git(folder, "switch", "-q", "--orphan", "other")
    library = {f"lib/n{number}.py": program(100 + number) for number in range(8)}
    commit(folder, library)
    git(folder, "switch", "-q", "main")
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    git(folder, "merge", "-q", "--no-edit", "--allow-unrelated-histories", "other")
    if way == "commit-date":
        merged = sample(source=local(folder), held_out_by=way)
        assert asked(merged).keys() == {f"mine/{name}" for name in library}
        assert {row["path"] for row in rows(merged, "train")} == BEFORE.keys()
    for number in range(7):
        commit(folder, {f"pkg/m{number}.py": grown(number)})
    found = sample(source=local(folder), held_out_by=way, held_out=0.4)
    assert {row["path"] for row in rows(found, "train")} == {*BEFORE, *library}
    assert sorted(asked(found).values()) == sorted(EXPECTED.values()) and found.units == 7


@pytest.mark.parametrize("way", ["commit-date", "commit"])
def test_an_amended_commit_is_one_as_it_is_now(tmp_path: Path, sample: Sample, way: str) -> None:
    folder = commit(tmp_path / "mine", BEFORE)
    for number in range(6):
        commit(folder, {"notes.md": f"{number}\n"})
    for number in range(7):
        commit(folder, {f"pkg/m{number}.py": program(number) + f"\ndef mistaken_{number}():\n    return {number}\n"})
        (folder / "pkg" / f"m{number}.py").write_text(grown(number))
        git(folder, "commit", "-q", "--all", "--amend", "-m", "again", "--date=2001-01-01T00:00:00")
    found = sample(source=local(folder), held_out_by=way, held_out=0.5)
    assert sorted(asked(found).values()) == sorted(EXPECTED.values()) and found.units == 7
    assert {row["path"]: row["content"] for row in rows(found, "train")} == BEFORE
    assert "the newest 7 of 14 commits" in found.source


def test_near_duplicates_of_one_repository_are_dropped_from_what_is_learned_and_counted(
    tmp_path: Path, sample: Sample
) -> None:
    """Lines that were added to each of them are asked for all the same."""
    before = {f"m{number}.py": program(1, 30) + f"\nx = {number}\n" for number in range(7)}
    folder = commit(tmp_path / "mine", before)
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    commit(folder, {name: text + f"\ny = {number} * x\n" for number, (name, text) in enumerate(before.items())})
    found = sample(source=local(folder), held_out_by="commit-date", near_duplicates=0.7)
    assert (found.train.files, found.units) == (1, 7)
    assert dropped(found, "near-duplicates") == {"near-duplicate, similarity 0.7 or more": 6}


@pytest.mark.parametrize("near", [None, 0.7])
def test_what_is_added_to_several_files_is_asked_for_once(near: float | None, tmp_path: Path, sample: Sample) -> None:
    """As several parts of an interval, it would be counted as so much more evidence."""
    folder = commit(tmp_path / "mine", BEFORE)
    for number in range(8):
        commit(folder, {"notes.md": f"{number}\n"})
    for number in range(6):
        commit(folder, {f"pkg/m{number}.py": grown(number)})
    same = program(70, 20)
    for number in range(3):
        commit(folder, {f"lib{number}/copy.py": same + "x = 0\n" * (number == 2)})
    found = sample(source=local(folder), held_out_by="commit", held_out=0.5, near_duplicates=near)
    texts = [text for texts in asked(found).values() for text in texts]
    copies = [text for text in texts if text.startswith(same)]
    assert len(copies) == (2 if near is None else 1)
    step = "duplicates" if near is None else "near-duplicates"
    assert sum(dropped(found, step).values()) == 3 - len(copies)
    assert found.units == len(asked(found)) == 6 + len(copies)
