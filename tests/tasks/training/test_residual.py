"""Training in fp16 where the residual stream passes 65,504: it stops, or keeps the stream in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from artifacts.errors import StageError
from artifacts.schema import TokenizedDataset
from tests.tasks.models.large import computing_in, large_model
from tests.tasks.training import jobs

SHORT = jobs.CONFIG.model_copy(update={"max_steps": 5, "learning_rate": 1e-3})


@pytest.mark.parametrize("backend", ["fused", "transformers"])
def test_learns_what_fp32_learns_or_stops(backend: str, tmp_path: Path, tokens: TokenizedDataset) -> None:
    plan = jobs.PLAN.model_copy(update={"backend": backend})
    kept = plan.model_copy(update={"fp32_residual": True})
    exact = jobs.train_here(tmp_path / "fp32", tokens, SHORT, plan, large_model())
    with computing_in(torch.float16):
        found = jobs.train_here(tmp_path / "kept", tokens, SHORT, kept, large_model())
        with pytest.raises(StageError, match="the loss is nan"):
            jobs.train_here(tmp_path / "fp16", tokens, SHORT, plan, large_model())
    assert found.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=2e-3)
    assert found.metrics["loss"][-1] < found.metrics["loss"][0]


def test_stopped_and_resumed_gives_the_same_bits(tmp_path: Path, tokens: TokenizedDataset) -> None:
    plan = jobs.PLAN.model_copy(update={"backend": "fused", "fp32_residual": True})
    with computing_in(torch.float16):
        jobs.train_here(tmp_path / "whole", tokens, SHORT, plan, large_model())
        jobs.stopped_and_resumed(tmp_path / "stopped", tokens, SHORT, plan, after=3, model=large_model())
    assert jobs.digest(tmp_path / "stopped") == jobs.digest(tmp_path / "whole")
