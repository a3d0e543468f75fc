"""Whatever a person writes is taken, or refused with one message: no traceback, no hang, no memory without end.

A few of each kind run always, twenty thousand with `pytest -m slow`. A failure names the number, which makes it again.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifacts.errors import InputError
from flows import cli
from flows.config import PipelineConfig, build
from tests.flows import generated

SECONDS, MEBIBYTES = 3.0, 400
FEW = range(0, 12_000, 97)
MANY = [range(first, first + 1_000) for first in range(0, 16_000, 1_000)]


@contextmanager
def bounded(what: str) -> Iterator[None]:
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < SECONDS, what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEBIBYTES << 10, what


def outcome(what: str, make: Callable[[], PipelineConfig]) -> str:
    """What became of settings. Those that are taken mean the same to the dashboard and to a key."""
    with bounded(what):
        try:
            config = make()
        except InputError as error:
            assert 10 < len(str(error)) < 6_000 and str(error).encode(), what
            return "refused"
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config, what
    assert config.job() and all(getattr(config, name).keyed() for name in ("sampling", "training", "evaluation")), what
    return "taken"


def of_changes(numbers: range) -> Counter[str]:
    return Counter(
        outcome(f"change {number}", lambda number=number: build("demo", [generated.change(number)]))  # type: ignore[misc]
        for number in numbers
    )


def of_recipes(numbers: range, folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for number in numbers:
        (folder / "r.yaml").write_bytes(generated.recipe(number))
        found[outcome(f"recipe {number}", lambda: build(str(folder / "r.yaml")))] += 1
    return found


def of_lines(numbers: range, folder: Path, capsys: pytest.CaptureFixture[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for number in numbers:
        words = [word.replace("{tmp}", str(folder)) for word in generated.line(number)]
        with bounded(f"line {number}"):
            status = cli.guarded(words)
        said = "".join(capsys.readouterr())
        assert status in (0, 2, 3), f"line {number}: {words} ended with {status}"
        assert "Traceback" not in said and (status == 0 or said.strip()), f"line {number}: {words}"
        found[str(status)] += 1
    return found


@pytest.fixture
def asked_for(request: pytest.FixtureRequest) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("these take minutes: -m slow")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where command lines find what spoils them."""
    (tmp_path / "f").write_bytes(b"x" * 100)
    (tmp_path / "r.yaml").write_bytes(b"a: [")
    (tmp_path / "l").symlink_to("l")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.stdin", (tmp_path / "f").open())
    return tmp_path


def test_changes() -> None:
    found = of_changes(FEW)
    assert found["refused"] > 60 and found["taken"] > 1


def test_recipes(tmp_path: Path) -> None:
    found = of_recipes(FEW, tmp_path)
    assert found["refused"] > 60


def test_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of_lines(FEW, folder, capsys)["2"] > 60


@pytest.mark.slow
@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("numbers", MANY, ids=lambda numbers: str(numbers.start))
def test_many_changes(numbers: range) -> None:
    assert of_changes(numbers).total() == len(numbers)


@pytest.mark.slow
@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("numbers", MANY[:3], ids=lambda numbers: str(numbers.start))
def test_many_recipes(numbers: range, tmp_path: Path) -> None:
    assert of_recipes(numbers, tmp_path).total() == len(numbers)


@pytest.mark.slow
@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("numbers", MANY[:2], ids=lambda numbers: str(numbers.start))
def test_many_lines(numbers: range, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of_lines(numbers, folder, capsys).total() == len(numbers)
