"""Two training processes on a CPU: they learn what one learns, and are stopped, killed and resumed as one."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import psutil
import pytest

from artifacts.errors import StageError
from artifacts.progress import Listener, Tick
from artifacts.schema import Checkpoint, TokenizedDataset
from tasks.training import ValidationSettings, supervision
from tests.tasks.training import jobs

TWO = jobs.PLAN.model_copy(update={"processes": 2, "accumulation": 2})
FUSED = TWO.model_copy(update={"backend": "fused"})
CONFIG = jobs.CONFIG


def family() -> list[psutil.Process]:
    """Launchers and training processes."""
    started = psutil.Process().children(recursive=True)
    return jobs.workers() + [one for one in started if jobs.is_running(one, "tasks.training.launcher")]


def rank(number: int) -> psutil.Process:
    return next(one for one in jobs.workers() if one.environ()["RANK"] == str(number))


def at_step(step: int, act: Listener) -> Listener:
    return lambda tick: act(tick) if tick.title == "training" and tick.completed == step else None


def cancel(_tick: Tick) -> None:
    assert len(jobs.workers()) == 2
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, tokens: TokenizedDataset) -> Checkpoint:
    """A run of two processes that nothing disturbed."""
    return jobs.run(tmp_path_factory.mktemp("fused"), tokens, CONFIG, plan=FUSED)


SLOW = (pytest.mark.slow, pytest.mark.skipif("not config.getoption('-m')", reason="slow: run it with -m slow"))


@pytest.mark.parametrize("backend", [pytest.param("transformers", marks=SLOW), "fused"])
def test_two_processes_learn_what_one_learns(
    backend: str, tmp_path: Path, tokens: TokenizedDataset, request: pytest.FixtureRequest
) -> None:
    alone = jobs.train_here(tmp_path / "alone", tokens, CONFIG, jobs.PLAN.model_copy(update={"backend": backend}))
    if backend == "fused":
        folder = request.getfixturevalue("fused").path
    else:
        folder = jobs.run(tmp_path / "two", tokens, CONFIG, plan=TWO).path
    together = jobs.metrics(folder)
    assert together["step"] == list(range(1, 9)) and together["tokens"] == alone.metrics["tokens"]
    assert together["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-5)
    assert together["grad_norm"] == pytest.approx(alone.metrics["grad_norm"], rel=1e-3)
    for name, weight in jobs.adapter(folder).items():
        assert (alone.adapter[name] - weight).norm() < 1e-3 * weight.norm(), name


def test_two_processes_measure_what_one_measures(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """Each its share of what is set aside, an odd number of chunks; both stop at the same step."""
    validation = ValidationSettings(share=0.2, steps=1, patience=2)
    ruin = {"validation": validation, "learning_rate": 1.0, "warmup_steps": 2, "packing": True}
    config = CONFIG.model_copy(update=ruin)
    one = jobs.PLAN.model_copy(update={"backend": "fused"})
    alone = jobs.train_here(tmp_path / "alone", tokens, config, one)
    together = jobs.run(tmp_path / "two", tokens, config, plan=FUSED)
    assert alone.validation["sequences"] == 5 and together.validation and together.stopped_early
    assert together.validation.kept_step == alone.validation["kept_step"]
    found, expected = (jobs.metrics(folder)["validation_loss"] for folder in (together.path, tmp_path / "alone"))
    best = alone.validation["kept_step"]
    assert len(found) == len(expected) == best + 2
    assert found[:best] == pytest.approx(expected[:best], rel=1e-4)


def test_killed_cancelled_and_resumed_gives_the_same_bits(
    workdir: Path, tokens: TokenizedDataset, fused: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StageError, match=r"rank 1 .*\(SIGKILL\)"):
        jobs.run(workdir, tokens, CONFIG, at_step(3, lambda _tick: rank(1).kill()), FUSED)
    assert not family()
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO):
        jobs.run(workdir, tokens, CONFIG, at_step(5, cancel), FUSED)
    assert not family() and "continuing from" in caplog.text
    newest = max((workdir / "checkpoints").glob("step-*"))
    assert newest.name >= "step-00000004"
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= {path.name for path in newest.iterdir()}
    resumed = jobs.run(workdir, tokens, CONFIG, plan=FUSED)
    assert resumed.resumed_from == int(newest.name[-8:])
    assert jobs.digest(workdir) == jobs.digest(fused.path)
    assert jobs.metrics(workdir)["loss"] == jobs.metrics(fused.path)["loss"]


def test_no_rank_survives_a_launcher_that_is_killed(workdir: Path, tokens: TokenizedDataset) -> None:
    def kill(_tick: Tick) -> None:
        next(one for one in family() if jobs.is_running(one, "tasks.training.launcher")).kill()

    with pytest.raises(StageError, match=r"told to stop|SIGKILL"):
        jobs.run(workdir, tokens, CONFIG, at_step(1, kill), FUSED)
    assert not family()


def test_first_failure_counts_unless_a_signal_came_before(tmp_path: Path) -> None:
    failure = {"kind": "failure", "error": "stage", "problem": "diverged", "field": None, "remedy": None}
    (tmp_path / "log").write_text("")
    with pytest.raises(StageError, match="diverged"):
        supervision._outcome(supervision._Words(failure, {"0": 1, "1": -signal.SIGTERM}), 1, tmp_path / "log")
    with pytest.raises(StageError, match=r"rank 1 .* SIGSEGV"):
        supervision._outcome(supervision._Words(failure, {"0": 1, "1": -signal.SIGSEGV}), 1, tmp_path / "log")
