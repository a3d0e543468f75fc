"""Writing down where an export comes from, beside its files. What is told: `artifacts.lineage`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.digest import Fingerprinted
from artifacts.lineage import LINEAGE, ROW, SOURCES, SPLITS, content_fingerprint, rows_of, sealed
from artifacts.schema import DatasetSample, Handle
from artifacts.store import Store
from tasks.running import provenance

_ROWS = 4096
"""In memory at once."""


def write(handle: Handle, parts: Mapping[str, Any], inputs: Mapping[str, Fingerprinted], store: Store) -> None:
    """Write both files into the work directory that `handle` stands for.

    Args:
        parts: what the export's key is made of.
    """
    folder = handle.path
    sample = next(value for value in inputs.values() if isinstance(value, DatasetSample))
    licenses = _write_sources(sample.path, folder / SOURCES)
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    model = {
        "stage": parts["stage"],
        "key": digest.of_json(parts),
        "key_parts": parts,
        "measurements": list(handle.measurements),
        "files": {
            name: {"size": path.stat().st_size, "sha256": digest.of_file(path)}
            for name, path in sorted(paths.items())
            if name != LINEAGE
        },
    }
    told = {
        "format": 2,
        "model": {**model, "fingerprint": content_fingerprint(model)},
        "made_by": {"code": provenance.code(), "libraries": provenance.libraries()},
        "inputs": {name: _input(value, store) for name, value in inputs.items()},
        "data": {
            "files": {split: getattr(sample, split).files for split in SPLITS},
            "licenses": dict(sorted(licenses.items())),
        },
    }
    told = json.loads(json.dumps(told))
    (folder / LINEAGE).write_text(json.dumps(sealed(told), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_sources(sample: Path, file: Path) -> Counter[str]:
    """How many files there are by licence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, licenses = pa.schema([(name, pa.string()) for name in ROW]), Counter[str]()
    rows = rows_of(sample)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while part := list(islice(rows, _ROWS)):
            licenses.update(row["license"] for row in part)
            writer.write_table(pa.Table.from_pylist(part, schema))
    return licenses


def _input(value: Fingerprinted, store: Store) -> dict[str, Any]:
    if not isinstance(value, Handle):
        return {"fingerprint": value.fingerprint, "value": provenance.described(value)}
    manifest = store.manifest(value).model_dump(mode="json")
    parts = manifest["provenance"].get("key_parts", {})
    return {**manifest, "key_parts": parts, "measurements": list(value.measurements)}
