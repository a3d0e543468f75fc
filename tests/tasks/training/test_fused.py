"""The fused engine inside the trainer: the same learning as the libraries' modules, and the same bits after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.schema import Quantization, TokenizedDataset
from tasks.training import LoraSettings
from tests.tasks.training import jobs

FUSED = jobs.PLAN.model_copy(update={"backend": "fused"})
TOGETHER = FUSED.model_copy(update={"micro_batch": 4, "accumulation": 1})


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_learns_what_the_stock_modules_learn(
    quantization: Quantization, tmp_path: Path, tokens: TokenizedDataset
) -> None:
    config = jobs.CONFIG.model_copy(update={"quantization": quantization})
    stock, fused = (jobs.train_here(tmp_path / plan.backend, tokens, config, plan) for plan in (jobs.PLAN, FUSED))
    assert fused.metrics["loss"] == pytest.approx(stock.metrics["loss"], rel=1e-5)
    assert fused.metrics["tokens"] == stock.metrics["tokens"]
    for name, weight in stock.adapter.items():
        assert (fused.adapter[name] - weight).norm() < 1e-3 * weight.norm(), name


@pytest.mark.parametrize("change", [{}, {"gradient_checkpointing": True}, {"resident_layers": 2}])
def test_one_by_one_or_together_is_the_same_update(
    change: dict[str, Any], tmp_path: Path, tokens: TokenizedDataset
) -> None:
    one_by_one = jobs.train_here(tmp_path / "a", tokens, plan=FUSED)
    together = jobs.train_here(tmp_path / "b", tokens, plan=TOGETHER.model_copy(update=change))
    assert together.metrics["loss"] == pytest.approx(one_by_one.metrics["loss"], rel=1e-5)
    for name, weight in one_by_one.adapter.items():
        assert (together.adapter[name] - weight).norm() < 1e-3 * weight.norm(), name


def test_dropout_drops(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """The adapter begins at zero, so the first loss is the same; what it learns then is not."""
    dropping = jobs.CONFIG.model_copy(update={"lora": LoraSettings(dropout=0.5), "max_steps": 3})
    plain = jobs.train_here(tmp_path / "a", tokens, jobs.CONFIG.model_copy(update={"max_steps": 3}), TOGETHER)
    dropped = jobs.train_here(tmp_path / "b", tokens, dropping, TOGETHER)
    assert dropped.metrics["loss"][0] == plain.metrics["loss"][0]
    assert dropped.metrics["grad_norm"][0] != pytest.approx(plain.metrics["grad_norm"][0], rel=1e-3)


def test_products_in_int8_learn_nearly_the_same(tmp_path: Path, tokens: TokenizedDataset) -> None:
    plain, fast = (
        jobs.train_here(tmp_path / plan.products, tokens, plan=plan)
        for plan in (TOGETHER, TOGETHER.model_copy(update={"products": "int8"}))
    )
    assert fast.metrics["loss"] != plain.metrics["loss"]
    assert fast.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=0.01)


@pytest.mark.parametrize(
    ("change", "products"),
    [
        ({}, "fp16"),
        ({"lora": LoraSettings(dropout=0.2)}, "fp16"),
        ({"optimizer": "adamw_bnb_8bit"}, "fp16"),
        ({}, "int8"),
    ],
)
def test_stopped_and_resumed_gives_the_same_bits(
    change: dict[str, Any], products: str, tmp_path: Path, tokens: TokenizedDataset
) -> None:
    config = jobs.CONFIG.model_copy(update=change)
    plan = TOGETHER.model_copy(update={"products": products})
    whole = jobs.train_here(tmp_path / "whole", tokens, config, plan)
    workdir = tmp_path / "stopped"
    jobs.stopped_and_resumed(workdir, tokens, config, plan, after=3)
    assert jobs.digest(workdir) == jobs.digest(tmp_path / "whole")
    assert jobs.metrics(workdir)["loss"] == whole.metrics["loss"]
