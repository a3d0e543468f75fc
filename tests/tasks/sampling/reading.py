"""Reading samples back, and writing sources for them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from artifacts import digest
from artifacts.schema import DatasetSample
from tasks.running.mapping import in_order

PROGRAM = "def double(number):\n    return number * 2  # case {}\n"


def rows(sample: DatasetSample, side: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(sample.path / f"{side}.parquet").to_pylist()
    return table


def everything(sample: DatasetSample) -> list[dict[str, Any]]:
    return rows(sample, "train") + rows(sample, "held_out")


def bytes_of(sample: DatasetSample) -> str:
    names = sorted(path.name for path in sample.path.iterdir())
    assert names == ["held_out.parquet", "train.parquet"], "nothing else may be left in the work directory"
    return digest.of_files(sample.path, names)


def dropped(sample: DatasetSample, step: str) -> dict[str, int]:
    return next(entry.dropped for entry in sample.funnel if entry.name == step)


def make_socket(path: Path) -> None:
    """A file that is a socket, which stays when the socket is closed."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def programs(count: int, repositories: int = 5, **more: Any) -> list[dict[str, Any]]:
    """Records of different small Python files."""
    return [
        {"content": PROGRAM.format(n), "repo": f"r{n % repositories}", "path": f"p{n}.py", **more} for n in range(count)
    ]


class Threads:
    """A mapper on plain threads."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self,
        title: str,
        work: Callable[[Any], Any],
        items: Iterable[Any],
        ahead: Callable[[], int] | None = None,
    ) -> Generator[Any, None, None]:
        with ThreadPoolExecutor(self.workers) as pool:
            yield from in_order(lambda item: pool.submit(work, item), items, ahead or (lambda: self.workers))
