"""Data sets on the hub, read from their files: only the row groups and columns that are needed.

Shards and row groups come in an order made of the seed and their names. Of a row group, the columns that tell
repository, path and licence are fetched first (a few kilobytes), the contents only if a row is wanted.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from artifacts import digest
from artifacts.errors import InputError
from artifacts.reading import blamed_on
from tasks import hub
from tasks.sampling.candidates import Row, SourceBatch
from tasks.sampling.config import ChoiceConfig, HubSource
from tasks.sampling.json_lines import ENDINGS, json_lines
from tasks.sampling.parquet_rows import REMEDY, batches, check_schema, options
from tasks.sampling.tables import TableShape, as_bytes, cells_of, record_batch

if TYPE_CHECKING:
    from pyarrow import parquet

log = logging.getLogger(__name__)

_FIELD = "sampling.source"
_STREAM_BUFFER = 4 * 1024 * 1024
"""Bytes of one range request while contents are read: a row group of any size needs no more memory than this."""
_JSON_BUFFER = 1024 * 1024
_FOOTERS = 4
"""Files whose footers are read at once."""


class OpenHubSource:
    """The rows of a data set's files in seeded order.

    Raises:
        InputError: no such data set, revision or file, or no access.
        TransientError: the hub does not answer.
    """

    samples = True

    def __init__(self, config: ChoiceConfig, source: HubSource) -> None:
        self._source, self._seed = source, config.seed
        self._policy = hub.RetryPolicy(attempts=source.attempts)
        self._opened: list[str] = []
        self.states_licenses = source.columns.license is not None

    def describe(self) -> str:
        name = self._source.dataset.split("/")[-1]
        return f"{name}@{self._commit[:8]} ({len(self._opened)} of {len(self._files)} shards)"

    def fingerprint(self) -> str:
        """Over data set and commit."""
        return digest.of_json({"dataset": self._source.dataset, "commit": self._commit})

    def batches(self) -> Iterator[SourceBatch]:
        """Row groups of the first `shards` files interleaved, then of the next ones."""
        shards = sorted(self._files, key=self._rank)
        for start in range(0, len(shards), self._source.shards):
            group = shards[start : start + self._source.shards]
            self._opened += group
            parquet_files = [name for name in group if name.endswith(".parquet")]
            with ThreadPoolExecutor(_FOOTERS, thread_name_prefix="footers") as pool:
                opened = list(pool.map(self._open, parquet_files))
            groups = [shard.row_group(number) for shard in opened for number in range(shard.metadata.num_row_groups)]
            yield from sorted(groups, key=lambda each: self._rank(f"{each.shard.name}:{each.number}"))
            for name in group:
                if name not in parquet_files:
                    with self._data.file(name) as file, blamed_on(Path(name), field=_FIELD, remedy=REMEDY):
                        stream = io.BufferedReader(file, _JSON_BUFFER)
                        yield from json_lines(cast("IO[bytes]", stream), name, file.size, self._data.shape)

    @cached_property
    def _commit(self) -> str:
        revision = self._source.revision
        return revision if revision and re.fullmatch(r"[0-9a-f]{40}", revision) else self._info(revision).sha

    @cached_property
    def _files(self) -> list[str]:
        names = [entry.rfilename for entry in self._info(self._commit).siblings or ()]
        known = [name for name in names if name.endswith((".parquet", *ENDINGS))]
        found = [name for name in known if fnmatchcase(name, self._source.files)]
        if not found:
            raise InputError(
                f"{self._source.dataset} has no Parquet or JSON-lines file that fits {self._source.files!r}",
                field=f"{_FIELD}.files",
                remedy="it has " + (", ".join(sorted(known)[:5]) if known else "none: choose another data set"),
            )
        return found

    @cached_property
    def _data(self) -> _DataSet:
        return _DataSet(self._source, self._commit, self._policy)

    def _info(self, revision: str | None) -> Any:
        name = self._source.dataset
        return hub.ask(
            f"the data set {name}" + (f" at {revision}" if revision else ""),
            lambda: hub.api().dataset_info(name, revision=revision, timeout=30),
            field=f"{_FIELD}.dataset",
            policy=self._policy,
        )

    def _open(self, name: str) -> _Shard:
        import pyarrow.parquet as pq

        with blamed_on(Path(name), field=f"{_FIELD}.files", remedy=REMEDY), self._data.file(name) as file:
            metadata, size = pq.read_metadata(file), file.size
            check_schema(metadata, self._source.columns, name)
        return _Shard(self._data, name, size, metadata)

    def _rank(self, name: str) -> bytes:
        return hashlib.sha256(f"{self._seed}:shard:{name}".encode()).digest()


@dataclass(frozen=True)
class _DataSet:
    """The data set at a commit: all that a worker needs to know to read from it by itself."""

    source: HubSource
    commit: str
    policy: hub.RetryPolicy

    @property
    def shape(self) -> TableShape:
        """How rows are to be understood."""
        return TableShape(self.source.columns, self.source.language, self.commit)

    def file(self, name: str, size: int | None = None) -> hub.RemoteFile:
        """A file of the data set at the commit, opened for reading in ranges."""
        return hub.RemoteFile(self.source.dataset, self.commit, name, field=_FIELD, policy=self.policy, size=size)


@dataclass(frozen=True)
class _Shard:
    """A Parquet file whose footer was read."""

    data: _DataSet
    name: str
    size: int
    """Bytes."""
    metadata: parquet.FileMetaData

    def row_group(self, number: int) -> _RowGroup:
        return _RowGroup(self, number)


@dataclass(frozen=True)
class _RowGroup:
    """A part of a shard; each use opens the file anew, so that threads share nothing."""

    shard: _Shard
    number: int

    def rows(self) -> Sequence[Row | None]:
        shape, rows = self.shard.data.shape, list[Row]()

        def place() -> str:
            return f"{self.shard.name}:{self.number}:{len(rows)}"

        if not shape.facts:
            for _ in range(self.shard.metadata.row_group(self.number).num_rows):
                rows.append(shape.row({}, place))
            return rows
        # The small columns lie side by side: with `pre_buffer` they come in one request.
        for batch in self._batches(shape.facts, pre_buffer=True, buffer_size=0):
            for record in record_batch(batch, shape).values:
                rows.append(shape.row(record or {}, place))
        return rows

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        import pyarrow as pa

        if not wanted:
            return
        content = self.shard.data.shape.columns.content
        remaining, start = list(reversed(wanted)), 0
        for batch in self._batches([content], pre_buffer=False, buffer_size=_STREAM_BUFFER):
            here = []
            while remaining and remaining[-1] < start + batch.num_rows:
                here.append(remaining.pop() - start)
            yield from map(as_bytes, cells_of(batch.column(0).take(pa.array(here, pa.int64()))))
            start += batch.num_rows
            if not remaining:
                return

    def portable(self, wanted: Callable[[Row | None], bool]) -> _RowGroup:
        """As it is, unread: a worker fetches it from the hub itself."""
        return self

    def _batches(self, columns: list[str], *, pre_buffer: bool, buffer_size: int) -> Iterator[Any]:
        import pyarrow.parquet as pq

        shard = self.shard
        settings = options() | {"pre_buffer": pre_buffer, "buffer_size": buffer_size}
        with shard.data.file(shard.name, shard.size) as file:
            reader = pq.ParquetFile(file, metadata=shard.metadata, **settings)
            yield from batches(reader, columns, shard.name, groups=[self.number])
