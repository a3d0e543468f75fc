"""A run, on a real Prefect server, with two toy stages that write real files."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from inspect import currentframe
from pathlib import Path
from traceback import walk_stack
from typing import Any, ClassVar
from uuid import UUID

import pytest
from prefect import flow
from prefect.runtime import flow_run

from artifacts.configuration import Config, Unkeyed
from artifacts.errors import InputError, StageError, TransientError
from artifacts.presentation import Section, Table, Text
from artifacts.progress import SILENT, Progress
from artifacts.pruning import prune
from artifacts.schema import Handle
from artifacts.store import Store
from tasks.running.job import Job
from tasks.running.run import Outcome, Run, run_stage
from tasks.running.stage import Parts, Stage
from tests.waiting import ended_task_runs


class Word(Handle):
    text: str
    summary: ClassVar[str] = "a word"  # type: ignore[misc]


class WordConfig(Config):
    text: str = "one"
    workers: int = Unkeyed(1)
    fails: int = Unkeyed(0)


CALLS: list[str] = []
RUNS: list[UUID] = []
"""The flow runs of a test."""


def write(config: WordConfig, *, workdir: Path, progress: Progress, upstream: Word | None = None) -> Word:
    CALLS.append(config.text)
    progress.begin("writing", total=1, unit="words")
    if len(CALLS) <= config.fails:
        raise TransientError("the network is tired")
    text = (upstream.text if upstream else "") + config.text
    (workdir / "word.txt").write_text(text)
    progress.advance()
    return Word(text=text, path=workdir)


def show(word: Word) -> list[Section]:
    return [Section("word", "The word", (Text(word.text), Table(("length",), ((str(len(word.text)),),))))]


FIRST = Stage(name="first", version=1, run=write, produces=Word, sections=show)
SECOND = Stage(name="second", version=1, run=write, produces=Word, sections=show)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> None:
    CALLS.clear()
    RUNS.clear()
    monkeypatch.setattr("tasks.running.run.run_stage", run_stage.with_options(retry_delay_seconds=0))


def go(
    store: Store, first: WordConfig, second: WordConfig | None = None, refresh: tuple[str, ...] = ()
) -> list[Outcome]:
    @flow
    def chain() -> list[Outcome]:
        RUNS.append(UUID(flow_run.id))
        run = Run(store, refresh)
        word = run.stage(FIRST, first)
        run.stage(SECOND, second or WordConfig(text="!"), upstream=word)
        return run.outcomes

    return chain()


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_a_second_run_is_served_from_the_store(store: Store) -> None:
    first, second = go(store, WordConfig()), go(store, WordConfig(workers=2))
    assert (states(first), states(second)) == (["ran", "ran"], ["cached", "cached"])
    assert [outcome.handle for outcome in first] == [outcome.handle for outcome in second]
    assert CALLS == ["one", "!"]


def test_only_what_changed_and_what_follows_runs_again(store: Store) -> None:
    go(store, WordConfig())
    assert states(go(store, WordConfig(), WordConfig(text="?"))) == ["cached", "ran"]
    assert states(go(store, WordConfig(text="two"))) == ["ran", "ran"]


def test_an_input_that_is_none_is_not_there(store: Store) -> None:
    @flow(name="without")
    def without() -> str:
        run = Run(store)
        run.stage(FIRST, WordConfig(), upstream=None)
        run.stage(FIRST, WordConfig())
        return " ".join(outcome.state for outcome in run.outcomes)

    assert without() == "ran cached"


class Sentence(Word):
    words: tuple[str, ...] = ()

    @property
    def made_of(self) -> tuple[str, ...]:
        return self.words


def put_together(config: WordConfig, *, parts: Parts, workdir: Path, progress: Progress) -> Sentence:
    found = [parts(FIRST, WordConfig(text=text), progress) for text in config.text.split()]
    return Sentence(text=" ".join(word.text for word in found), words=tuple(word.place for word in found), path=workdir)


TOGETHER = Stage(name="together", version=1, run=put_together, produces=Sentence, sections=show, in_parts=True)


def test_parts_are_kept_as_long_as_a_run_that_used_them(store: Store) -> None:
    def say(text: str) -> None:
        @flow(name="saying")
        def saying() -> None:
            with Run(store) as run:
                run.stage(TOGETHER, WordConfig(text=text))

        saying()

    say("a b")
    say("b c")
    assert CALLS == ["a", "b", "c"]
    for _ in range(2):  # the run that built the words, and one that was served
        prune(store, 1)
        say("b c")
    prune(store, 1)
    say("c b")  # another sentence of the same words
    assert CALLS == ["a", "b", "c"]
    say("a b")
    assert CALLS == ["a", "b", "c", "a"]
    prune(store, 0)
    assert store.places() == []


def test_refreshing_a_stage_that_gives_the_same_bytes_leaves_the_rest_alone(store: Store) -> None:
    go(store, WordConfig())
    assert states(go(store, WordConfig(), refresh=("first",))) == ["ran", "cached"]


def test_a_new_version_of_a_stage_runs_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    go(store, WordConfig())
    monkeypatch.setitem(globals(), "SECOND", Stage(name="second", version=2, run=write, produces=Word, sections=show))
    assert states(go(store, WordConfig())) == ["cached", "ran"]


@pytest.mark.parametrize("harm", ["delete", "truncate", "alter"])
def test_a_damaged_artifact_is_built_again_and_the_log_says_why(
    store: Store, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = go(store, WordConfig())[0].handle.path / "word.txt"
    if harm == "delete":
        shutil.rmtree(file.parent)
    else:
        file.write_text("on" if harm == "truncate" else "0ne")
    with caplog.at_level(logging.WARNING, logger="artifacts"):
        assert states(go(store, WordConfig())) == ["ran", "cached"]
    assert harm == "delete" or "built again" in caplog.text


@pytest.mark.parametrize("gone", [False, True], ids=["reused", "built"])
@pytest.mark.parametrize(
    "serializer",
    [
        {"type": "pickle", "picklelib": "pickle"},
        {"type": "compressed/pickle"},
        {"type": "compressed", "serializer": {"type": "pickle"}, "compressionlib": "lzma"},
        {"type": "json", "object_decoder": "os.system"},
        {"type": "json"},
    ],
)
def test_no_record_of_prefects_runs_code(store: Store, tmp_path: Path, serializer: dict[str, Any], gone: bool) -> None:
    """Placed where version 0.1 had them, under every name that a stage had."""
    outcomes, proof = go(store, WordConfig()), tmp_path / "ran"
    pickled = base64.encodebytes(pickle.dumps(Touching(str(proof)))).decode()
    text = json.dumps({"__class__": "pathlib.Path.touch", "data": str(proof)})
    record = {"metadata": {"serializer": serializer}, "result": text if serializer["type"] == "json" else pickled}
    for outcome in outcomes:
        for name in (f"{outcome.stage}-{outcome.key}", outcome.key):
            (store.place / ".records").mkdir(exist_ok=True)
            (store.place / ".records" / name).write_text(json.dumps(record))
        if gone:
            shutil.rmtree(outcome.handle.path)
    assert states(go(store, WordConfig())) == (["ran", "ran"] if gone else ["cached", "cached"])
    assert not proof.exists()


class Touching:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path(self.path).touch, ()


@pytest.mark.parametrize("fault", ["input", "other"])
def test_a_failing_run_leaves_no_pickle_and_nothing_beside_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def fail(config: WordConfig, *, workdir: Path, progress: Progress) -> Word:
        raise InputError("no such word") if fault == "input" else KeyError("word")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setitem(globals(), "FIRST", Stage(name="first", version=1, run=fail, produces=Word, sections=show))
    with pytest.raises((InputError, KeyError)):
        go(store, WordConfig())
    assert not list((tmp_path / "here").iterdir())
    files = [path for path in store.place.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= {".runs", ".locks"}


REMOVED = {
    "the store": ".",
    "what it takes": "first/*",
    "a file of what it takes": "first/*/word.txt",
    "its manifest": "first/*/manifest.json",
    "the work directory": ".work/second/*",
    "all work directories": ".work",
    "the locks": ".locks",
}


@pytest.mark.parametrize("what", REMOVED)
@pytest.mark.parametrize("library", [False, True], ids=["system", "library"])
def test_files_that_are_removed_under_a_run_end_in_one_message_and_a_rerun_heals(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str, library: bool
) -> None:
    def remove(config: WordConfig, *, workdir: Path, progress: Progress, upstream: Word) -> Word:
        for path in [store.place] if REMOVED[what] == "." else [*store.place.glob(REMOVED[what])]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            (upstream.path / "word.txt").read_text()
            (workdir / "word.txt").write_text("two")
        except OSError:
            if library:
                raise RuntimeError("invalid header") from None
            raise
        return Word(text="two", path=workdir)

    def chained() -> list[Outcome]:
        return go(store, WordConfig(text="first of all"))

    calm = globals()["SECOND"]
    monkeypatch.setitem(globals(), "SECOND", Stage(name="second", version=1, run=remove, produces=Word, sections=show))
    if what in ("the locks", "its manifest"):  # what is not looked at again does not end the run
        assert states(chained())[1] == "ran"
    else:
        with pytest.raises(StageError, match="removed") as raised:
            chained()
        assert raised.value.remedy and "run again" in raised.value.remedy
    monkeypatch.setitem(globals(), "SECOND", calm)
    again = go(Store(store.place), WordConfig(text="first of all"), WordConfig(text="?"))
    assert states(again)[1] == "ran" and (again[1].handle.path / "word.txt").read_text() == "first of all?"


def test_three_functions_lie_between_a_run_and_a_stage_and_change_no_argument(store: Store) -> None:
    """Beside those of Prefect, which looks into what a task is given and may copy it."""
    given: list[object] = []
    way: list[str] = []

    def look(config: WordConfig, *, workdir: Path, progress: Progress, upstream: Word) -> Word:
        given.extend((config, upstream))
        for frame, _ in walk_stack(currentframe()):
            if str(frame.f_globals.get("__name__")).startswith("tasks."):
                way.append(frame.f_code.co_qualname)
        return write(config, workdir=workdir, progress=progress, upstream=upstream)

    second = WordConfig(text="!")

    @flow
    def looking() -> None:
        run = Run(store)
        first = run.stage(FIRST, WordConfig())
        run.stage(Stage(name="second", version=1, run=look, produces=Word, sections=show), second, upstream=first)
        assert given[0] is second and given[1] is first

    looking()
    assert way == ["Job.build", "Run._build", "run_stage", "Run.stage"]


def test_a_transient_fault_is_retried(store: Store) -> None:
    assert states(go(store, WordConfig(fails=2))) == ["ran", "ran"]
    assert CALLS == ["one", "one", "one", "!"]


def test_other_faults_are_not_retried_and_leave_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: WordConfig, *, workdir: Path, progress: Progress) -> Word:
        CALLS.append(config.text)
        (workdir / "word.txt").write_text("half")
        raise InputError("no such word", field="first.text")

    monkeypatch.setitem(globals(), "FIRST", Stage(name="first", version=1, run=refuse, produces=Word, sections=show))
    with pytest.raises(InputError, match="no such word"):
        go(store, WordConfig())
    assert CALLS == ["one"]
    assert not list(store.place.rglob("word.txt"))


def test_a_guard_is_asked_before_building_only(store: Store) -> None:
    asked: list[str] = []

    @flow
    def guarded() -> None:
        Run(store).stage(FIRST, WordConfig(), guard=lambda: asked.append("may I?"))

    guarded()
    guarded()
    assert asked == ["may I?"]


def test_a_full_disk_is_said_in_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(config: WordConfig, *, workdir: Path, progress: Progress) -> Word:
        with Path("/dev/full").open("w") as file:
            file.write(config.text)
        raise AssertionError

    monkeypatch.setitem(globals(), "FIRST", Stage(name="first", version=1, run=fill, produces=Word, sections=show))
    with pytest.raises(StageError, match="disk is full"):
        go(store, WordConfig())


@pytest.fixture
def nobody(store: Store) -> Iterator[None]:
    """Who is not root, whom permissions do not stop; the store is theirs."""
    if os.geteuid():
        yield
        return
    for path in (store.place, *store.place.rglob("*")):
        os.chown(path, 65534, 65534)
    for folder in store.place.parents:
        if folder.owner() == "root" and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("lost", ["first", "first/*/manifest.json", "first/*/word.txt", ".work", ".locks"])
def test_permission_that_is_lost_is_said_in_words(store: Store, lost: str, nobody: None) -> None:
    job = Job.of(FIRST, WordConfig(), {})
    job.build(store, SILENT)
    (path,) = store.place.glob(lost)
    mode = path.stat().st_mode
    path.chmod(0)
    with pytest.raises(StageError, match="Permission denied"):
        job.build(store, SILENT, forced=lost == ".locks")
    if lost != ".locks":
        with pytest.raises(StageError, match="Permission denied"):
            job.find(store)
    path.chmod(mode)
    assert job.find(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs privileges")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_is_said_in_words_whichever_library_finds_out(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(config: WordConfig, *, workdir: Path, progress: Progress) -> Word:
        with sqlite3.connect(workdir / "words.sqlite") as database:
            database.execute("CREATE TABLE words (word)")
            database.execute("INSERT INTO words VALUES (zeroblob(4000000))")
        raise AssertionError

    monkeypatch.setitem(globals(), "FIRST", Stage(name="first", version=1, run=fill, produces=Word, sections=show))
    with pytest.raises(StageError, match="disk is full"):
        go(Store(small_disk / "store"), WordConfig())
    assert not list((small_disk / "store").rglob("*.sqlite"))


def test_the_dashboard_has_the_sections_and_the_graph(store: Store) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    go(store, WordConfig(text="unseen"))
    this = FlowRunFilter(id=FlowRunFilterId(any_=RUNS))
    with get_client(sync_client=True) as client:
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=this)}
        runs = {run.name: run for run in ended_task_runs(client, RUNS[0], {"first", "second"})}
    assert "unseen" in str(artifacts["first-word"].data)
    assert "first-progress" in artifacts
    upstream = [entry.id for entries in runs["second"].task_inputs.values() for entry in entries]
    assert runs["first"].id in upstream
