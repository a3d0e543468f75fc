"""Generation: what both models make of a small world."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from artifacts.rows import read_rows
from artifacts.schema import ExportedModel
from flows.config import PipelineConfig
from tasks.backends.transformers.inference import Modules
from tasks.generation import STAGE
from tests.settings import prompts
from tests.settings.table import Lab, Row
from tests.tasks.generation import world
from tests.tasks.gguf.extra import INSTALLED


def noise(lab: Lab) -> ExportedModel:
    return world.noise_adapter(lab.folder(), lab.once(prompts.base))


def look_generated(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Losses, the answers of every suite, and how they were computed."""
    batches: list[int] = []
    threads: set[int] = set()
    decoded: set[int] = set()
    losses, generate = Modules.losses, Modules.generate

    def computing(side: Modules, ids: Any, counts: Any) -> Any:
        batches.append(len(ids))
        threads.add(torch.get_num_threads())
        return losses(side, ids, counts)

    def answering(side: Modules, prompts: Any, decoding: Any, done: Any) -> Any:
        decoded.add(decoding.batch_size)
        return generate(side, prompts, decoding, done)

    with patch.object(Modules, "losses", computing), patch.object(Modules, "generate", answering):
        inputs = lab.once(prompts.place).inputs(lab.once(noise), lab.once(prompts.asked))
        made = STAGE.run(config.generation, **inputs, workdir=lab.folder())
    found: dict[str, Any] = {"batches": batches, "decoded": decoded, "threads": threads}
    for row in read_rows(made.path / "losses.parquet"):
        found.setdefault(f"losses, {row['domain']}", []).append(row)
    for row in read_rows(made.path / "completions.parquet"):
        found.setdefault(row["suite"], []).append(row)
    return found


def look_shipped(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """The losses of both models as the first form that is shipped, where there is one."""
    if not INSTALLED:
        pytest.skip("needs the extra codetune[gguf]: llama-cpp-python")
    inputs = lab.once(prompts.place).inputs(lab.once(noise_as_gguf), lab.once(prompts.asked))
    made = STAGE.run(config.generation, **inputs, workdir=lab.folder())
    rows = read_rows(made.path / "losses.parquet")
    return {"form": made.form, **{side: [row[side] for row in rows] for side in ("base", "tuned")}}


def noise_as_gguf(lab: Lab) -> ExportedModel:
    return world.with_gguf(lab.once(noise), lab.folder(), lab.once(prompts.base))


GIVEN = {
    "generation.quantization": "none",
    "generation.repeated": 0.01,
    "generation.batch_size": 8,
    "generation.cpu_threads": 1,
}


def row(first: Any, second: Any, *least: str) -> Row:
    return Row(first, second, look_generated, GIVEN, least=frozenset(least))


ROWS = {
    f"generation.{name}": made
    for name, made in {
        "quantization": row("none", "int8", "losses, held_out", "losses, retention"),
        "repeated": row(0.01, 1.0, "losses, retention", "line"),
        "batch_size": row(8, 2, "batches", "decoded"),
        "cpu_threads": row(1, 2, "threads"),
    }.items()
} | {"generation.forms": Row([], ["gguf-f16"], look_shipped, GIVEN, apart=frozenset({"form", "base", "tuned"}))}
