"""The recipe `own-code` from its command to its report, on real code and with the built-in model."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import pytest

from artifacts.schema import Checkpoint, DatasetSample, EvaluationReport, Handle, PreflightReport, TokenizedDataset
from artifacts.store import read_manifest
from flows import cli, stages
from tests.conftest import ROOT

PEFT = find_spec("peft")
assert PEFT and PEFT.origin
CODE = Path(PEFT.origin).parent / "tuners"
"""About 45 folders of real code, which no other part of the recipe reads."""
EPOCHS, BUDGET = 3, 3
SETTINGS = (
    f"model.name={ROOT / 'models' / 'codellama-tiny'}",
    f"sampling.source.paths=['{CODE}']",
    "sampling.replay.source.paths=['package:anyio', 'package:starlette']",
    "sampling.replay.files=60",
    "retention.files=40",
    "training.effective_batch=2",
    f"training.epochs={EPOCHS}",
    "training.warmup_steps=1",
    "training.validation={steps: 4, sequences: 8}",
    "exporting.forms=[]",
    "prompts.max_chunks=24",
    "prompts.line_prompts=16",
    "prompts.fim_prompts=8",
    "prompts.block_prompts=0",
    "prompts.prompt_tokens=128",
    "prompts.context_tokens=96",
    "prompts.max_new_tokens=8",
    "evaluation.resamples=2000",
)
H = TypeVar("H", bound=Handle)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_code_ends_in_a_verdict_within_its_budget(prefect_server: None, tmp_path: Path) -> None:
    output = StringIO()
    changes = [part for one in SETTINGS for part in ("--set", one)]
    with redirect_stdout(output):
        status = cli.guarded(
            ["run", "own-code", *changes, "--budget", f"{BUDGET}s", "--store", str(tmp_path / "store"), "--json"]
        )
    assert status == 0
    told = json.loads(output.getvalue().splitlines()[-1])
    expected = [one for one in stages.STAGES if one not in (*stages.SHIPPED, "quantization", "execution")]
    assert {name: one["state"] for name, one in told["stages"].items()} == dict.fromkeys(expected, "ran")

    sample = made(told, "sampling", DatasetSample)
    assert told["held_out_by"] == sample.held_out_by == "folder", "they are of one package"
    assert "folder" in told["proves"]
    assert sample.units is not None and sample.units >= 6
    assert sample.replay is not None and sample.replay.size.files > 0 and sample.replay.share == 0.05
    tokens = made(told, "tokenization", TokenizedDataset)
    assert tokens.format == "fim" and tokens.train.made["behind files of its repository"] > 0

    predicted, trained = made(told, "preflight", PreflightReport).prediction, made(told, "training", Checkpoint)
    assert predicted.budget_steps and predicted.step_seconds
    assert predicted.budget_steps * predicted.step_seconds < 1.01 * BUDGET
    assert 1 <= trained.steps <= predicted.budget_steps < EPOCHS * tokens.train.chunks / 2
    assert trained.validation is not None and 0.5 < trained.validation.kept_loss < 3

    judged = {one.name: one for one in made(told, "evaluation", EvaluationReport).metrics}
    assert {"loss", "line_exact_match", "fim_exact_match", "context_exact_match", "retention_loss"} <= judged.keys()
    loss = judged["loss"]
    assert 0.5 < loss.tuned < 3 and 0.5 < loss.base < 3 and loss.clusters >= 6
    assert loss.low is not None and loss.high is not None and loss.low <= loss.difference <= loss.high
    assert {"loss", "specific_loss", "retention_loss"} <= told["verdicts"].keys()
    assert told["verdict"] in ("promote", "hold") and (told["version"] is None) == (told["verdict"] == "hold")
    assert "interval" in Path(told["report"]).read_text(encoding="utf-8")


def made(told: dict[str, Any], stage: str, kind: type[H]) -> H:
    """What a stage of the run handed over."""
    folder = Path(told["stages"][stage]["path"])
    return kind.model_validate({**read_manifest(folder).handle, "path": folder})
