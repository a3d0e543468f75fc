"""Epochs in the place of steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from artifacts.schema import TokenizedDataset
from flows.config import build
from tasks.models.shape import read_shape
from tasks.preflight.judgement import judge
from tasks.preflight.view import prediction_rows
from tasks.training import TrainingConfig
from tests.conftest import SMALL_MODEL
from tests.tasks.preflight.machines import machine
from tests.tasks.training import jobs


def test_epochs_become_steps(workdir: Path, tokens: TokenizedDataset, caplog: pytest.LogCaptureFixture) -> None:
    config = TrainingConfig(**{**jobs.CONFIG.model_dump(exclude={"max_steps"}), "epochs": 0.4, "quantization": "none"})
    with caplog.at_level(logging.INFO):
        result = jobs.run(workdir, tokens, config)
    assert result.steps == 3 and jobs.metrics(workdir)["step"] == [1, 2, 3]
    assert "0.4 epochs of 24 sequences are 3 steps" in caplog.text


@pytest.mark.parametrize(
    ("tokens", "epochs"), [(1, 10), (499_999, 10), (500_000, 5), (1_999_999, 5), (2_000_000, 3), (10**9, 3)]
)
def test_the_fewer_the_more_text_there_is(tokens: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(epochs="auto", effective_batch=1)
    assert config.counted(7, tokens).steps == epochs * 7
    before = config.keyed()
    monkeypatch.setattr("tasks.training.config.FEWEST_EPOCHS", 2)
    assert config.keyed() != before and config.counted(7, 10**9).steps == 14


def test_the_warmup_is_a_tenth_of_the_steps_at_most() -> None:
    config = TrainingConfig(epochs=1, warmup_steps=10)
    assert [config.counted(sequences, 1).warmup_steps for sequences in (1, 100, 4000)] == [0, 2, 10]


@pytest.mark.parametrize("settings", [{"max_steps": None}, {"epochs": 0}, {"epochs": 1e9}])
def test_something_says_how_long(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TrainingConfig.model_validate(settings)


def test_a_budget_caps_the_epochs() -> None:
    config = TrainingConfig(epochs=2).within(5)
    assert [config.counted(sequences, 1).steps for sequences in (4, 400)] == [2, 5]
    assert TrainingConfig(**config.model_dump()) == config


def test_whoever_sets_epochs_need_not_know_the_steps_of_the_recipe(tmp_path: Path) -> None:
    training = build("demo", ["training.epochs=2"]).training
    assert (training.epochs, training.max_steps) == (2, None)
    (tmp_path / "mine.yaml").write_text("recipe: demo\ntraining: {epochs: auto}\n")
    assert build(str(tmp_path / "mine.yaml")).training.epochs == "auto"
    training = build(str(tmp_path / "mine.yaml"), ["training.max_steps=7"]).training
    assert (training.epochs, training.max_steps) == (None, 7)


def test_preflight_says_that_steps_are_counted_later() -> None:
    config = build("demo", ["training.epochs=2", "preflight.device=cpu"])
    prediction = judge(config.preflight, config.job(), read_shape(SMALL_MODEL), machine(), download=False).prediction
    rows = dict(prediction_rows(prediction))
    assert rows["steps"].startswith("2 epochs") and rows["time for a step"].endswith(" s")
    assert prediction.seconds is None and prediction.step_seconds
