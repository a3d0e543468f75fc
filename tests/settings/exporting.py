"""Exporting: a random model of two layers, merged and compared."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from flows.config import PipelineConfig
from tasks.exporting import STAGE
from tests.conftest import SMALL_MODEL
from tests.settings.table import Lab, Row
from tests.tasks.exporting.pieces import Pieces, make, tiny_llama
from tests.tasks.gguf.extra import INSTALLED


def pieces(lab: Lab) -> Pieces:
    folder = lab.folder()
    return make(folder, tiny_llama(folder / "base", SMALL_MODEL))


def look_exported(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Which files there are, and what they were compared with."""
    made = STAGE.run(config.exporting, **lab.once(pieces).inputs(), workdir=lab.folder())
    adapter, merged = made.forms[0], made.form("merged")
    files = {path.relative_to(made.path).as_posix() for path in made.path.rglob("*.safetensors")}
    gguf = made.form("gguf-f16")
    return {
        "files": files,
        "weights": sha256((made.path / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "card": (made.path / "adapter" / "README.md").read_text(),
        "adapter": adapter.comparison.against,
        "adapter bound": adapter.comparison.bound,
        "adapter positions": adapter.comparison.positions,
        "merged": merged and merged.comparison.against,
        "merged bound": merged and merged.comparison.bound,
        "merged positions": merged and merged.comparison.positions,
        "gguf bound": gguf and gguf.comparison.bound,
    }


def look_at_gguf(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    if not INSTALLED:
        pytest.skip("needs the extra codetune[gguf]: llama-cpp-python")
    return look_exported(lab, config)


GIVEN = {"exporting.quantization": "none", "exporting.positions": 40}


def row(first: Any, second: Any, *apart: str) -> Row:
    return Row(first, second, look_exported, GIVEN, apart=frozenset(apart))


ROWS = {
    f"exporting.{name}": made
    for name, made in {
        "forms": row(["merged"], [], "files", "merged", "merged bound", "merged positions"),
        "quantization": row("none", "int8", "adapter", "card"),
        "adapter_scale": row(1.0, 0.7, "card", "weights", "merged bound"),
        "max_shard_gb": row(2.0, 0.0003, "files"),
        "positions": row(40, 20, "adapter positions", "merged positions"),
        "adapter_bound": row(1e-4, 1e-3, "adapter bound"),
        "merged_tolerance": row(0.004, 0.008, "merged bound"),
    }.items()
} | {
    "exporting.gguf_tolerance": Row(
        0.01,
        0.02,
        look_at_gguf,
        {**GIVEN, "exporting.forms": ["gguf-f16"]},
        apart=frozenset({"gguf bound"}),
    )
}
