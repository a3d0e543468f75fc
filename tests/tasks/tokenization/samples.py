"""Samples and model references for tests of the stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.schema import DatasetSample, SplitSize
from tasks.models.base_model import ModelReference

COLUMNS = ("repo", "path", "language", "license", "size", "sha256", "revision", "content")


def write_sample(folder: Path, train: Iterable[str], held_out: Iterable[str] = ("x = 1\n",)) -> DatasetSample:
    """A sample of Python files, one repository a side, in row groups of 50 files."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        name: _write(folder / f"{name}.parquet", name, texts)
        for name, texts in (("train", train), ("held_out", held_out))
    }
    counts = {"languages": {"Python": 1}, "licenses": {"mit": 1}, "funnel": ()}
    return DatasetSample(path=folder, source="test", **sizes, **counts)


def reference(folder: Path, context: int = 2048) -> ModelReference:
    """A model of which only tokenizer and configuration are there."""
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "max_position_embeddings": context}))
    return ModelReference(name="toy", revision=None, fingerprint="0", metadata=folder)


def _write(path: Path, repo: str, texts: Iterable[str]) -> SplitSize:
    rows = []
    for number, text in enumerate(texts):
        size, sha = len(text.encode()), hashlib.sha256(text.encode()).hexdigest()
        values = (repo, f"src/file{number}.py", "Python", "mit", size, sha, "", text)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    types = [pa.int64() if name == "size" else pa.string() for name in COLUMNS]
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=50)
    return SplitSize(files=len(rows), repositories=1, bytes=sum(row["size"] for row in rows))
