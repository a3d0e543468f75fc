"""Prompts: a small world, asked a little of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.rows import read_rows
from artifacts.schema import PromptSet
from flows.config import PipelineConfig
from tasks.prompts import STAGE
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


def suite(lab: Lab) -> Path:
    return write(lab.folder() / "small.jsonl", problem())


def given(lab: Lab) -> dict[str, Any]:
    chosen = GIVEN | {"functional": [str(lab.once(suite))]}
    return {f"prompts.{name}": value for name, value in chosen.items()}


def asked(lab: Lab) -> PromptSet:
    """Of the settings as they are given."""
    return lab.once(place).ask(lab.folder(), **GIVEN, functional=[str(lab.once(suite))])


def look_behind(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """What is asked where all held-out files are in one repository."""
    here, folder = lab.once(place), lab.folder()
    for side in ("train", "held_out"):
        table = pq.read_table(here.sample.path / f"{side}.parquet")
        names = [f"{repo}.py" for repo in table["repo"].to_pylist()]
        repo = pa.array(["one"] * table.num_rows)
        table = table.set_column(table.schema.get_field_index("path"), "path", pa.array(names))
        pq.write_table(table.set_column(table.schema.get_field_index("repo"), "repo", repo), folder / f"{side}.parquet")
    sample = here.sample.model_copy(update={"path": folder})
    made = STAGE.run(config.prompts, model=here.model, sample=sample, tokens=here.tokens, workdir=lab.folder())
    return {file.name: read_rows(made.path / file.file) for file in made.suites}


def look_asked(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Every file, the losses' by domain."""
    here = lab.once(place)
    texts = {"sample": here.sample, "tokens": here.tokens}
    elsewhere = {"retention": here.retention, "retention_tokens": here.retention_tokens}
    made = STAGE.run(config.prompts, model=here.model, **texts, **elsewhere, workdir=lab.folder())
    found: dict[str, Any] = {file.name: read_rows(made.path / file.file) for file in made.suites}
    for row in read_rows(made.path / made.losses.file):
        found.setdefault(f"losses, {row['domain']}", []).append(row)
    return found


GIVEN = {
    "max_chunks": 4,
    "line_prompts": 2,
    "fim_prompts": 1,
    "block_prompts": 1,
    "prompt_tokens": 48,
    "max_new_tokens": 16,
    "functional_tokens": 24,
}


def row(first: Any, second: Any, *apart: str) -> Row:
    return Row(first, second, look_asked, given, apart=frozenset(apart))


ROWS = {
    f"prompts.{name}": made
    for name, made in {
        "seed": row(0, 1, "losses, held_out", "losses, retention", "line", "fim", "block"),
        "max_chunks": row(4, 2, "losses, held_out", "losses, retention"),
        "line_prompts": row(2, 1, "line"),
        "fim_prompts": row(1, 0, "fim"),
        "block_prompts": row(1, 0, "block"),
        "context_tokens": Row(0, 120, look_behind, given, apart=frozenset({"context"})),
        "prompt_tokens": row(48, 24, "line", "fim", "block"),
        "max_new_tokens": row(16, 8, "line", "fim", "block"),
        "functional_tokens": row(24, 16, "small"),
    }.items()
}
