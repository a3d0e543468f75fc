"""What both models did on each item, in one table, whatever suite it is from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from artifacts import digest

Row = Mapping[str, Any]
SIDES = frozenset({"base", "again", "tuned"})
"""Columns of the models; all others say what the item is."""


@dataclass(frozen=True)
class Result:
    """One metric of one item."""

    metric: str
    item: str
    """A digest of what was asked: the same item has the same in every run."""
    cluster: str
    weight: float
    """What it counts: the tokens of a chunk, or 1."""
    base: float
    tuned: float


def gather(folders: Iterable[Path]) -> list[Result]:
    """The results that `losses.parquet`, `completions.parquet` and `scores.parquet` of some folders hold."""
    tables = {path.stem: _read(path) for folder in folders for path in sorted(folder.glob("*.parquet"))}
    found = [*_losses(tables["losses"]), *_scores(tables["scores"], tables["completions"])]
    return sorted(found, key=lambda result: (result.metric, result.item))


def write(results: Iterable[Result], path: Path) -> None:
    """As Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"metric": pa.string(), "item": pa.string(), "cluster": pa.string()}
    schema = pa.schema([(field.name, kinds.get(field.name, pa.float64())) for field in fields(Result)])
    pq.write_table(pa.Table.from_pylist([asdict(result) for result in results], schema), path)


def read(path: Path) -> list[Result]:
    """What `write` wrote."""
    return [Result(**row) for row in _read(path)]


def _losses(rows: Iterable[Row]) -> Iterator[Result]:
    for row in rows:
        base, tuned = (row[side] / row["tokens"] for side in ("base", "tuned"))
        yield Result(f"{_prefix(row)}loss", _item(row), row["repo"], row["tokens"], base, tuned)


def _scores(rows: Iterable[Row], completions: Iterable[Row]) -> Iterator[Result]:
    asked = {row["item"]: _item({**row, "item": None}) for row in completions}
    for row in rows:
        metric = f"{_prefix(row)}{row['suite']}_{row['score']}"
        yield Result(metric, asked[row["item"]], row["repo"], 1.0, row["base"], row["tuned"])


def _prefix(row: Row) -> str:
    return "retention_" if row.get("domain") == "retention" else ""


def _item(row: Row) -> str:
    return digest.of_json({name: value for name, value in row.items() if name not in SIDES})


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
