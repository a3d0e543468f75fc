"""`codetune preflight` says whether there can be a verdict, before anything is made."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.progress import SILENT
from artifacts.store import Store
from flows.cli import guarded
from flows.config import build
from tasks import sampling
from tasks.running.job import Job
from tasks.sampling import foreseeing
from tests.repositories import commit
from tests.tasks.sampling.test_later import changes, program


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "1000")
    return tmp_path / "store"


def preflight(*changed: str, recipe: str = "demo") -> int:
    return guarded(["preflight", recipe, *(word for change in changed for word in ("--set", change))])


def local(*paths: Path) -> str:
    return f"sampling.source={{kind: local, paths: [{', '.join(map(str, paths))}]}}"


def test_how_many_units_are_held_out_and_what_a_gain_on_them_proves(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changes(tmp_path / "mine", 7)
    assert preflight(local(folder), "sampling.held_out_by=commit") == 0
    told = capsys.readouterr()
    said = told.out
    assert "looking at the code" in told.err
    assert "42 lines of 7 commits are held out" in said and "never seen" in said
    assert not store.exists() or not list(store.glob("sampling/*"))


def test_epochs_are_told_in_steps_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = [local(changes(tmp_path / "mine", 7)), "sampling.held_out_by=commit", "training.epochs=2"]
    steps = {}
    for size in (1, 2):
        assert preflight(*code, f"training.effective_batch={size}") == 0
        found = re.search(r"2 epochs of these are about (\d+) optimizer steps: [\d.]+ s here", capsys.readouterr().out)
        steps[size] = int(found[1]) if found else 0
    assert steps[1] == 2 * steps[2] > 0
    assert preflight(*code, "training.effective_batch=1", "preflight.budget=0.5s") == 0
    room = re.search(r"of which the budget has room for (\d+)", capsys.readouterr().out)
    assert room and 0 < int(room[1]) < steps[1]


@pytest.mark.parametrize("length", ["training.epochs=2", "training.max_steps=5"])
def test_less_than_one_optimizer_step_ends_as_the_run_would(
    length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = [local(changes(tmp_path / "mine", 7)), "sampling.held_out_by=commit", length]
    assert preflight(*code, "training.effective_batch=1") == 0
    capsys.readouterr()
    assert preflight(*code, "training.effective_batch=64") == 2
    assert "training.effective_batch" in capsys.readouterr().err


def test_one_file_of_which_nothing_can_be_set_aside_ends_as_the_run_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    for number in range(12):
        commit(folder, {"mod.py": "\n".join(map(program, range(number + 1)))})
    code = [local(folder), "sampling.held_out_by=commit"]
    assert preflight(*code) == 0 and "There can be a verdict" in capsys.readouterr().out
    assert preflight(*code, "training.validation={steps: 10}") == 2
    said = capsys.readouterr().err
    assert "training.validation" in said and "one file" in said


def test_too_few_repositories_are_told_with_what_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [commit(tmp_path / f"r{n}", {f"{n}{m}.py": program(10 * n + m) for m in range(4)}) for n in range(4)]
    assert preflight(local(*paths)) == 0
    said = capsys.readouterr().out
    assert "2 repositories can be held out, and an interval needs 6" in said and "about thirty" in said


def test_where_no_way_gives_an_interval_it_ends_as_the_run_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "only.py").write_text(program(1))
    changed = [local(folder), "model.name=models/codellama-tiny"]
    assert preflight(*changed, recipe="own-code") == 2
    said = capsys.readouterr()
    assert "nothing that could be held out gives an interval" in said.err and "git fetch --unshallow" in said.err
    assert "peak memory" in said.out  # of the machine all is told first


def test_what_the_store_has_is_not_sampled_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [local(changes(tmp_path / "mine", 7)), "sampling.held_out_by=commit"]
    Job.of(replace(sampling.STAGE, parallel=False), build("demo", changed).sampling, {}).build(
        Store(tmp_path / "store"), SILENT
    )
    monkeypatch.setattr(foreseeing, "run_sampling", None)
    assert preflight(*changed) == 0 and "of 7 commits are held out" in capsys.readouterr().out


@pytest.mark.parametrize("large", [True, False])
def test_what_takes_long_or_is_elsewhere_is_told_by_sampling(
    large: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreseeing, "run_sampling", None)
    monkeypatch.setattr(foreseeing, "_SECONDS", 100)
    source = local(changes(tmp_path / "mine", 7)) if large else "sampling.source={kind: hub, dataset: some/code}"
    assert preflight(source) == 0 and "Sampling tells how much can be held out" in capsys.readouterr().out
