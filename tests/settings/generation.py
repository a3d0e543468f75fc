"""Generation: a small world, asked a little of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import torch

from artifacts.schema import ExportedModel
from flows.config import PipelineConfig
from tasks.backends.transformers.inference import Modules
from tasks.generation import STAGE
from tests.conftest import SMALL_MODEL
from tests.settings.table import Lab, Row
from tests.tasks.exporting.pieces import tiny_llama
from tests.tasks.functional.suites import row as problem
from tests.tasks.functional.suites import write
from tests.tasks.generation import world


def base(lab: Lab) -> Path:
    return tiny_llama(lab.folder(), SMALL_MODEL)


def place(lab: Lab) -> world.World:
    return world.with_retention(lab.folder(), lab.once(base))


def noise(lab: Lab) -> ExportedModel:
    return world.noise_adapter(lab.folder(), lab.once(base))


def suite(lab: Lab) -> Path:
    return write(lab.folder() / "small.jsonl", problem())


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
        inputs = lab.once(place).inputs(lab.once(noise))
        made = STAGE.run(config.generation, **inputs, workdir=lab.folder())
    found: dict[str, Any] = {"batches": batches, "decoded": decoded, "threads": threads}
    for row in pq.read_table(made.path / "losses.parquet").to_pylist():
        found.setdefault(f"losses, {row['domain']}", []).append(row)
    for row in pq.read_table(made.path / "completions.parquet").drop_columns("item").to_pylist():
        found.setdefault(row["suite"], []).append(row)
    return found


GIVEN = {
    "quantization": "none",
    "max_chunks": 4,
    "line_prompts": 2,
    "fim_prompts": 1,
    "block_prompts": 1,
    "prompt_tokens": 48,
    "max_new_tokens": 16,
    "functional_tokens": 24,
    "repeated": 0.01,
    "batch_size": 8,
    "cpu_threads": 1,
}


def row(first: Any, second: Any, *apart: str, least: tuple[str, ...] = ()) -> Row:
    def given(lab: Lab) -> dict[str, Any]:
        chosen = GIVEN | {"functional": [str(lab.once(suite))]}
        return {f"generation.{name}": value for name, value in chosen.items()}

    return Row(first, second, look_generated, given, apart=frozenset(apart) or None, least=frozenset(least))


ROWS = {
    f"generation.{name}": made
    for name, made in {
        "quantization": row("none", "int8", least=("losses, held_out", "losses, retention")),
        "seed": row(0, 1, least=("losses, held_out", "losses, retention", "line", "fim", "block")),
        "max_chunks": row(4, 2, "losses, held_out", "losses, retention", "batches"),
        "line_prompts": row(2, 1, "line"),
        "fim_prompts": row(1, 0, "fim"),
        "block_prompts": row(1, 0, "block"),
        "prompt_tokens": row(48, 24, "line", "fim", "block"),
        "max_new_tokens": row(16, 8, "line", "fim", "block"),
        "functional_tokens": row(24, 16, "small"),
        "repeated": row(0.01, 1.0, least=("losses, retention", "line")),
        "batch_size": row(8, 2, least=("batches", "decoded")),
        "cpu_threads": row(1, 2, least=("threads",)),
    }.items()
}
