"""What git knows of a working tree: of every kind that there is, without running or writing anything of it."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from hashlib import sha1
from pathlib import Path
from zlib import compress

import pytest

from tasks import checkout
from tests.repositories import commit, everything_in, git

FILES = {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return commit(tmp_path / "mine", FILES)


def read(top: Path) -> checkout.Checkout:
    found = checkout.read(top)
    assert found is not None
    return found


def touch(top: Path) -> None:
    """Have git look into the files: their times are not those that it noted."""
    for name in FILES:
        os.utime(top / name, (1, 1))


@pytest.mark.parametrize(
    "config",
    [
        "[core]\n fsmonitor = {run}\n",
        "[core]\n hooksPath = {hooks}\n fsmonitor = true\n",
        "[core]\n sshCommand = {run}\n gitProxy = {run}\n pager = {run}\n editor = {run}\n askPass = {run}\n",
        "[core]\n alternateRefsCommand = {run}\n worktree = /etc\n attributesFile = {attributes}\n",
        '[filter "x"]\n clean = {run}\n smudge = {run}\n required\n',
        '[filter "x"]\n process = {run}\n',
        '[diff]\n external = {run}\n[diff "x"]\n textconv = {run}\n command = {run}\n',
        "[alias]\n ls-files = !{run}\n rev-parse = !{run}\n config = !{run}\n",
        "[include]\n path = {included}\n",
        '[includeIf "gitdir:/"]\n path = {included}\n',
        "[credential]\n helper = !{run}\n",
        '[merge "x"]\n driver = {run}\n[gpg]\n program = {run}\n[log]\n showSignature = true\n',
        "[submodule]\n recurse = true\n[trace2]\n eventTarget = {target}\n normalTarget = {target}\n",
        '[remote "origin"]\n url = ext::{run}\n promisor = true\n partialclonefilter = tree:0\n uploadpack = {run}\n'
        "[protocol]\n allow = always\n[extensions]\n partialClone = origin\n",
        "[pager]\n ls-files = {run}\n[uploadpack]\n packObjectsHook = {run}\n",
    ],
)
def test_no_program_that_a_repository_names_is_run(tmp_path: Path, repository: Path, config: str) -> None:
    run, target, included = (tmp_path / name for name in ("run", "pwned", "included"))
    run.write_text(f"#!/bin/sh\necho run >> {target}\ncat\n")
    run.chmod(0o755)
    included.write_text(f'[core]\n fsmonitor = {run}\n[filter "x"]\n clean = {run}\n')
    (tmp_path / "attributes").write_text("* filter=x diff=x merge=x\n")
    shutil.copy(tmp_path / "attributes", repository / ".gitattributes")
    shutil.copy(tmp_path / "attributes", repository / ".git" / "info" / "attributes")
    for folder in (repository / ".git" / "hooks", tmp_path / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in ("post-index-change", "pre-commit", "fsmonitor-watchman", "reference-transaction", "post-checkout"):
            shutil.copy(run, folder / name)
    places = {"run": run, "hooks": tmp_path / "hooks", "included": included, "target": target}
    with (repository / ".git" / "config").open("a") as file:
        file.write(config.format(**places, attributes=tmp_path / "attributes"))
    touch(repository)
    before = everything_in(repository)
    found = read(repository)
    (only,) = checkout.commits(repository)
    files = checkout.files_of(repository, only.id)
    texts = checkout.contents_of(repository, [file.blob for file in files])
    assert dict(zip([file.name for file in files], texts, strict=True)) == {n: t.encode() for n, t in FILES.items()}
    added: list[tuple[str, ...]] = []
    checkout.read_additions(repository, "", lambda *one: added.append(one))
    assert added == [(only.id, name, text) for name, text in FILES.items()]
    assert not target.exists() and everything_in(repository) == before
    assert set(FILES) == set(found.tracked) and found.commit == git(tmp_path, "-C", "mine/.git", "rev-parse", "HEAD")


def test_the_environment_and_the_persons_configuration_change_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(repository)
    (tmp_path / ".gitconfig").write_text("[broken\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "CONFIG_PARAMETERS", "EXTERNAL_DIFF", "TRACE", "EXEC_PATH"):
        monkeypatch.setenv(f"GIT_{name}", "/nonexistent")
    assert read(repository) == expected


@pytest.mark.parametrize(
    "form",
    [
        ("update-index", "--index-version=3", "--force-write-index"),
        ("update-index", "--index-version=4"),
        ("update-index", "--split-index"),
        ("update-index", "--untracked-cache"),
        ("update-index", "--assume-unchanged", "a.py"),
        ("sparse-checkout", "set", "--cone", "--sparse-index", "pkg"),
        ("sparse-checkout", "set", "--no-cone", "/pkg/"),
        ("pack-refs", "--all"),
        ("gc", "-q"),
        ("checkout", "-q", "--detach"),
        ("config", "core.bare", "false"),
        ("commit-graph", "write"),
        ("repack", "-q", "-a", "-d", "--write-midx"),
    ],
)
def test_forms_in_which_git_writes_a_repository(repository: Path, form: tuple[str, ...]) -> None:
    git(repository, *form)
    before = everything_in(repository)
    found = read(repository)
    assert set(found.tracked) == set(FILES) and found.commit == git(repository, "rev-parse", "HEAD")
    assert everything_in(repository) == before
    (repository / "pkg" / "b.py").write_text("b = 2\n")
    assert read(repository).commit.endswith("-dirty")


def test_object_names_of_64_digits(tmp_path: Path) -> None:
    found = read(commit(tmp_path / "mine", FILES, "--object-format=sha256"))
    assert len(found.commit) == 64 and set(found.tracked) == set(FILES)


def test_what_counts_as_dirty(repository: Path) -> None:
    def dirty() -> bool:
        return read(repository).commit.endswith("-dirty")

    touch(repository)
    (repository / "a.py").chmod(0o755)
    (repository / "untracked.py").touch()
    assert not dirty()
    git(repository, "config", "core.autocrlf", "true")
    (repository / "a.py").unlink()
    git(repository, "checkout", "a.py")
    touch(repository)
    assert (repository / "a.py").read_bytes() == b"a = 1\r\n" and not dirty()
    (repository / "a.py").write_text("a = 2\n")
    assert dirty()
    git(repository, "add", "a.py")
    assert dirty()
    git(repository, "commit", "-q", "-m", "two")
    assert not dirty()
    (repository / "pkg" / "b.py").unlink()
    assert dirty()


def test_entries_that_are_no_usual_files(repository: Path) -> None:
    commit(repository, {"c.py": "c = 1\n"})
    git(repository, "checkout", "-q", "-b", "other", "HEAD~1")
    commit(repository, {"c.py": "c = 2\n"})
    with pytest.raises(Exception, match="merge"):
        git(repository, "merge", "-q", "main")
    (repository / "new.py").touch()
    git(repository, "add", "--intent-to-add", "new.py")
    found = read(repository)
    assert sorted(found.tracked) == ["a.py", "c.py", "new.py", "pkg/b.py"] and found.commit.endswith("-dirty")


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "new")
    assert read(tmp_path / "new").tracked == () and read(tmp_path / "new").commit == ""
    (tmp_path / "new" / "a.py").touch()
    git(tmp_path / "new", "add", "a.py")
    assert read(tmp_path / "new").tracked == ("a.py",) and read(tmp_path / "new").commit == ""


def damage(repository: Path, how: str) -> None:
    place = repository / ".git"
    if how == "index":
        (place / "index").write_bytes((place / "index").read_bytes()[:-30])
    elif how == "bits":
        content = bytearray((place / "index").read_bytes())
        content[40] ^= 1
        (place / "index").write_bytes(content)
    elif how == "pointer":
        shutil.rmtree(place)
        place.write_text("gitdir: /nowhere\n")
    elif how == "no pointer":
        shutil.rmtree(place)
        place.write_text("x\n")
    elif how in ("HEAD", "objects", "refs"):
        (place / how).rename(place / "elsewhere")
    elif how == "empty":
        shutil.rmtree(place)
        place.mkdir()
    elif how == "dangling":
        place.rename(repository / "elsewhere")
        place.symlink_to("/nowhere")
    elif how.startswith("FIFO "):
        (repository / how.removeprefix("FIFO ")).unlink(missing_ok=True)
        (repository / how.removeprefix("FIFO ")).parent.mkdir(exist_ok=True)
        os.mkfifo(repository / how.removeprefix("FIFO "))
    elif how == "symbolic":
        (place / "refs" / "heads" / "main").write_text("ref: refs/heads/second\n")
        os.mkfifo(place / "refs" / "heads" / "second")
    elif how == "borrowed":
        (borrowed := repository.parent / "a borrowed one" / "pack").mkdir(parents=True)
        os.mkfifo(borrowed / "pack-1.idx")
        (place / "objects" / "info" / "alternates").write_text(f'# theirs\n"{borrowed.parent}"\n')
    elif how == "bomb":
        name = git(repository, "rev-parse", "HEAD")
        (bomb := place / "objects" / name[:2] / name[2:]).unlink()
        bomb.write_bytes(compress(b"commit 99999999999\0" + bytes(1 << 20)))
    elif how == "no ref":
        (place / "HEAD").write_text("x\n")
    elif how == "huge":
        os.truncate(place / "index", 1 << 40)
    elif how == "commit":
        name = git(repository, "rev-parse", "HEAD")
        (place / "objects" / name[:2] / name[2:]).unlink()
    else:
        with (place / "config").open("a") as file:
            file.write(how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("[core]\n repositoryformatversion = 2\n", "version"),
        ("[core]\n repositoryformatversion = x\n", "numeric"),
        ("[core]\n repositoryformatversion = 1\n[extensions]\n made-up = true\n", "made-up"),
        ("[core]\n repositoryformatversion = 1\n[extensions]\n objectformat = md5\n", "md5"),
        ("[broken\n", "config"),
        ("[core]\n bare = true\n", "core.bare"),
        ("index", "index"),
        ("bits", "index"),
        ("pointer", "/nowhere"),
        ("no pointer", "gitdir"),
        ("HEAD", "HEAD"),
        ("objects", "objects"),
        ("refs", "refs"),
        ("empty", "HEAD"),
        ("dangling", "cannot be read"),
        ("FIFO .git/index", "FIFO"),
        ("FIFO .git/HEAD", "HEAD"),
        ("FIFO .git/config", "FIFO"),
        ("FIFO .git/packed-refs", "packed-refs"),
        ("FIFO .git/refs/heads/main", "main"),
        ("FIFO .git/shallow", "FIFO"),
        ("FIFO .git/objects/pack/pack-1.idx", "pack-1"),
        ("FIFO pkg/.gitattributes", "gitattributes"),
        ("FIFO .git/objects/00/1", "00/1"),
        ("FIFO .git/objects/info/commit-graph", "commit-graph"),
        ("FIFO .git/objects/info/commit-graphs/commit-graph-chain", "commit-graph-chain"),
        ("FIFO .git/objects/info/alternates", "alternates"),
        ("symbolic", "second"),
        ("borrowed", "pack-1"),
        ("bomb", "memory"),
        ("no ref", "git repository"),
        ("huge", "larger"),
        ("commit", "git"),
    ],
)
def test_what_git_refuses_is_refused_with_its_words(repository: Path, how: str, said: str) -> None:
    damage(repository, how)
    with pytest.raises(checkout.Refused, match=said) as refusal:
        checkout.read(repository)
    assert str(repository) in str(refusal.value) and "codetune-git-" not in str(refusal.value)


def test_a_loop_of_links_among_its_alternates_ends_no_reading(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (repository / ".git" / "objects" / "info" / "alternates").write_text(f"{tmp_path / 'loop' / 'x'}\n")
    assert checkout.read(repository) is not None  # as for git, an alternate that is not there


def test_without_git_a_repository_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(checkout.Refused, match="not installed"):
        checkout.read(repository)


@pytest.mark.parametrize(
    "name", ["../outside.py", "/etc/hosts", ".git/config", "pkg/../../x", "./a", ".GIT/config", "a//b"]
)
def test_an_index_that_names_what_is_not_below_is_refused(repository: Path, name: str) -> None:
    path, blob = name.encode(), bytes.fromhex(git(repository, "rev-parse", "HEAD:a.py"))
    entry = struct.pack(">10L20sH", *(0,) * 6, stat.S_IFREG | 0o644, 0, 0, 6, blob, len(path)) + path
    content = b"DIRC" + struct.pack(">2L", 2, 1) + entry + b"\0" * (8 - len(entry) % 8)
    (repository / ".git" / "index").write_bytes(content + sha1(content).digest())
    with pytest.raises(checkout.Refused):
        checkout.read(repository)


@pytest.mark.parametrize("options", [("--filter=blob:none",), ("--filter=tree:0", "--no-checkout"), ("--depth=1",)])
def test_what_a_clone_lacks_is_not_fetched(tmp_path: Path, repository: Path, options: tuple[str, ...]) -> None:
    commit(repository, {"c.py": "c = 1\n"})
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", *options, f"file://{repository}", "clone")
    name = git(repository, "rev-parse", "HEAD")
    repository.rename(tmp_path / "away")
    before = everything_in(tmp_path / "clone")
    found = read(tmp_path / "clone")
    assert everything_in(tmp_path / "clone") == before and found.commit.removesuffix("-dirty") == name
    assert bool(found.tracked) != ("--no-checkout" in options)


def test_a_program_called_git_in_a_working_tree_is_not_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "git").write_text(f"#!/bin/sh\ntouch {repository}/pwned\n")
    (repository / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}")
    monkeypatch.chdir(repository)
    assert set(read(repository).tracked) == set(FILES) and not (repository / "pwned").exists()


def test_checkouts_of_one_repository_are_known_by_what_they_share(tmp_path: Path, repository: Path) -> None:
    commit(repository, {"c.py": "c = 1\n"})
    git(repository, "remote", "add", "origin", "https://me@Example.org:443/Me/Mine.git/")
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "HEAD~1")
    git(tmp_path, "clone", "-q", "--bare", "mine", "bare.git")
    git(tmp_path, "clone", "-q", "bare.git", "clone")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "ssh")
    git(tmp_path / "ssh", "remote", "set-url", "origin", "git@example.org:me/mine")
    shutil.copytree(repository, tmp_path / "copy")
    other = read(commit(tmp_path / "other", {"o.py": "o = 1\n"})).identity
    for name in ("tree", "clone", "shallow", "ssh", "copy"):
        assert read(tmp_path / name).identity & read(repository).identity, name
        assert not read(tmp_path / name).identity & other
    assert not [key for key in read(tmp_path / "shallow").identity if key.startswith("root")]


@pytest.mark.parametrize("url", ["n" * 5000, "../broken", "file:///%00", ":", "", "//", "https://", "a\nb"])
def test_where_a_repository_was_cloned_from_may_be_anything(repository: Path, url: str) -> None:
    (repository.parent / "broken").mkdir()
    (repository.parent / "broken" / ".git").write_text("gitdir: /nowhere")
    git(repository, "config", "remote.origin.url", url)
    assert set(read(repository).tracked) == set(FILES)


def test_a_bare_repository_is_no_code_but_worktrees_beside_one_are(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "hub").mkdir()
    git(tmp_path, "clone", "-q", "--bare", "mine", "hub/.bare")
    (tmp_path / "hub" / ".git").write_text("gitdir: ./.bare\n")
    git(tmp_path / "hub", "worktree", "add", "-q", "main")
    assert checkout.read(tmp_path / "hub") is None and set(read(tmp_path / "hub" / "main").tracked) == set(FILES)
    with pytest.raises(checkout.Refused, match="no code"):
        checkout.top_of(tmp_path / "hub" / ".bare" / "hooks")


def test_earlier_commits_are_read_as_they_were(repository: Path) -> None:
    commit(repository, {"a.py": "a = 2\n", "new file\n.py": "n = 1\n"})
    git(repository, "update-index", "--add", "--cacheinfo", f"120000,{git(repository, 'hash-object', 'a.py')},s.py")
    git(repository, "commit", "-q", "-m", "link")
    first, *_, last = checkout.commits(repository)
    assert last.id == git(repository, "rev-parse", "HEAD") and first.seconds <= last.seconds
    assert {file.name: file.size for file in checkout.files_of(repository, first.id)} == {"a.py": 6, "pkg/b.py": 6}
    later = {file.name: file.blob for file in checkout.files_of(repository, last.id)}
    assert set(later) == {"a.py", "pkg/b.py", "new file\n.py"}, "a link is no file"
    assert checkout.contents_of(repository, [later["a.py"], later["new file\n.py"]]) == [b"a = 2\n", b"n = 1\n"]
    assert checkout.contents_of(repository, []) == []


def test_what_a_commit_added_is_read_whatever_it_looks_like(repository: Path) -> None:
    since = git(repository, "rev-parse", "HEAD")
    odd = "++ b/x.py\n@@ -1 +1,9 @@\ncommit 123\n- minus\nlast"
    commit(repository, {"ein ü name.py": odd})
    git(repository, "mv", "a.py", "moved.py")
    commit(repository, {"moved.py": "a = 1\nb = 2\n"})
    added: list[tuple[str, ...]] = []
    checkout.read_additions(repository, since, lambda *one: added.append(one))
    names = git(repository, "rev-list", "--reverse", f"{since}..HEAD").split()
    assert added[:-1] == [(names[0], "ein ü name.py", line) for line in (odd + "\n").splitlines(keepends=True)]
    assert added[-1][2] == "b = 2\n" and len(names) == 2
    with pytest.raises(checkout.Refused):
        checkout.read_additions(repository, "0" * 40, lambda *_: None)


@pytest.mark.parametrize("name", ['quoted "b".py', "back\\slash.py", "tab\tand\nline.py", '"ü".py', "end ", " b/c.py"])
def test_what_was_added_to_a_file_of_any_name(repository: Path, name: str) -> None:
    since = git(repository, "rev-parse", "HEAD").strip()
    added: list[tuple[str, ...]] = []
    commit(repository, {"a.py": "a = 2\n", name: "++ b/c.py\n"})
    checkout.read_additions(repository, since, lambda *one: added.append(one))
    assert {one[1:] for one in added} == {("a.py", "a = 2\n"), (name, "++ b/c.py\n")}


def test_a_merge_is_one_commit_of_its_branch(repository: Path) -> None:
    git(repository, "switch", "-q", "-c", "side")
    commit(repository, {"a.py": "a = 2\n"})
    git(repository, "switch", "-q", "main")
    commit(repository, {"pkg/b.py": "b = 2\n"})
    git(repository, "merge", "-q", "--no-ff", "--no-edit", "side")
    assert len(checkout.commits(repository)) == 3


def test_a_commit_may_name_no_file_outside(repository: Path) -> None:
    blob = git(repository, "hash-object", "-w", "a.py")
    tree = git(repository, "mktree", text=f"100644 blob {blob}\tx\n")
    for name in ("..", ".git"):
        above = sha1_of_tree(repository, name, tree)
        with pytest.raises(checkout.Refused, match="which is no file of a working tree"):
            checkout.files_of(repository, above)
    with pytest.raises(checkout.Refused):
        checkout.files_of(repository, "0" * 40)
    with pytest.raises(checkout.Refused, match="lacks the contents"):
        checkout.contents_of(repository, ["0" * 40])


def sha1_of_tree(repository: Path, name: str, below: str) -> str:
    """A tree that git itself would not write, with a folder of that name."""
    body = b"40000 " + name.encode() + b"\0" + bytes.fromhex(below)
    data = b"tree %d\0" % len(body) + body
    digits = sha1(data).hexdigest()
    place = repository / ".git" / "objects" / digits[:2] / digits[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(compress(data))
    return digits


def test_a_repository_without_a_commit_has_no_history(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "empty")
    assert checkout.commits(tmp_path / "empty") == []
