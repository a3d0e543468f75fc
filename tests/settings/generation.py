"""Generation: a small world, asked a little of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import torch

from artifacts.schema import ExportedModel
from flows.config import PipelineConfig
from tasks.generation import STAGE
from tasks.generation.sides import Stock
from tests.settings.table import Lab, Row
from tests.tasks.functional.suites import row as problem
from tests.tasks.functional.suites import write
from tests.tasks.generation import world


def place(lab: Lab) -> world.World:
    return world.build(lab.folder())


def noise(lab: Lab) -> ExportedModel:
    return world.noise_adapter(lab.folder())


def suite(lab: Lab) -> Path:
    return write(lab.folder() / "small.jsonl", problem())


def look_generated(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Losses, the answers of every suite, and how they were computed."""
    batches: list[int] = []
    threads: set[int] = set()
    losses = Stock.losses

    def computing(side: Stock, ids: Any, counts: Any) -> Any:
        batches.append(len(ids))
        threads.add(torch.get_num_threads())
        return losses(side, ids, counts)

    with patch.object(Stock, "losses", computing):
        inputs = lab.once(place).inputs(lab.once(noise))
        made = STAGE.run(config.generation, **inputs, workdir=lab.folder())
    found: dict[str, Any] = {"batches": batches, "threads": threads, "quantization": made.quantization}
    found["losses"] = pq.read_table(made.path / "losses.parquet").to_pylist()
    for row in pq.read_table(made.path / "completions.parquet").drop_columns("item").to_pylist():
        found.setdefault(row["suite"], []).append(row)
    return found


GIVEN = {
    "quantization": "none",
    "max_chunks": 4,
    "line_prompts": 4,
    "fim_prompts": 2,
    "block_prompts": 2,
    "prompt_tokens": 48,
    "max_new_tokens": 16,
    "functional_tokens": 24,
    "repeated": 0.01,
    "batch_size": 8,
    "cpu_threads": 1,
}


def row(first: Any, second: Any, *apart: str) -> Row:
    def given(lab: Lab) -> dict[str, Any]:
        chosen = GIVEN | {"functional": [str(lab.once(suite))]}
        return {f"generation.{name}": value for name, value in chosen.items()}

    return Row(first, second, look_generated, given, apart=frozenset(apart) or None)


ROWS = {
    f"generation.{name}": made
    for name, made in {
        "quantization": row("none", "int8"),
        "seed": row(0, 1),
        "max_chunks": row(4, 2, "losses", "batches"),
        "line_prompts": row(4, 2, "line"),
        "fim_prompts": row(2, 0, "fim"),
        "block_prompts": row(2, 0, "block"),
        "prompt_tokens": row(48, 24, "line", "fim", "block"),
        "max_new_tokens": row(16, 8, "line", "fim", "block"),
        "functional_tokens": row(24, 16, "small"),
        "repeated": row(0.01, 1.0),
        "batch_size": row(8, 2),
        "cpu_threads": row(1, 2),
    }.items()
}
