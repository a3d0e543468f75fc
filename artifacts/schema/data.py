"""What sampling and tokenization hand on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from artifacts.presentation import counted
from artifacts.schema.base import Handle, Record
from artifacts.units import UNITS, HeldOutBy


class SplitSize(Record):
    """How much one side of the split holds."""

    files: int
    repositories: int
    bytes: int


REPLAY = "replay:"
"""Begins the names of the repositories that general code among what is learned from is of."""


class Replay(Record):
    """General code among what is learned from: rows of `train.parquet` behind all others."""

    share: float
    """Of the training sequences."""
    source: str
    """In words, for people."""
    size: SplitSize
    """What sampling took; tokenization uses as much of it as makes the share."""


class FunnelStep(Record):
    """One step of choosing the sample: what came in, what went on, and why the rest did not."""

    name: str
    kept: int
    """Rows that went on."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Rows that did not, by reason."""


class DatasetSample(Handle):
    """`train.parquet` and `held_out.parquet`, a row per source file: `repo, path, language, license, size` (bytes),
    `sha256` (of this content), `revision` (of the source), `content` (text). No repository, or no folder, is on both
    sides. Where lines are held out, `held_out.parquet` has the files as they are later, and `added`: which of their
    characters are asked for, `start` and `end`, and of which `unit` they are."""

    source: str
    """The source in words, for people: `github-code@b5661e6b (3 shards)`."""
    train: SplitSize
    held_out: SplitSize
    languages: dict[str, int]
    """Files by language, both sides."""
    licenses: dict[str, int]
    """Files by licence, both sides; `unknown` where the source says nothing."""
    secrets: dict[str, int] = Field(default_factory=dict)
    """Secrets that a placeholder stands for, by kind, both sides."""
    replay: Replay | None = None
    """Beside `train.parquet` also in `replay.json`; None without."""
    funnel: tuple[FunnelStep, ...]
    held_out_by: HeldOutBy = "repository"
    """What tells what is held out."""
    units: int | None = None
    """Of these, how many are held out: an interval needs six. None where an older version did not count."""
    added_lines: int = 0
    """Lines that are asked for, where not whole files are."""

    @property
    def own(self) -> SplitSize:
        """What is learned from without general code."""
        if self.replay is None:
            return self.train
        general = self.replay.size
        return SplitSize(
            files=self.train.files - general.files,
            repositories=self.train.repositories - general.repositories,
            bytes=self.train.bytes - general.bytes,
        )

    @property
    def summary(self) -> str:
        own, held_out = self.own, self.held_out
        unit = UNITS["folder" if self.held_out_by == "folder" else "repository"]
        learned = f"{counted(own.files, 'file')} of {unit.count(own.repositories)} to learn from"
        if self.replay:
            learned += f" beside {self.replay.size.files:,} of general code"
        if self.added_lines:
            lines = counted(self.added_lines, "line")
            return f"{learned}, {lines} added later to {counted(held_out.files, 'file')} held out"
        return f"{learned}, {held_out.files:,} of {held_out.repositories:,} held out"


class RetentionSample(DatasetSample):
    """The same of code from outside what is trained on: both sides are there to be judged by."""

    @property
    def size(self) -> SplitSize:
        """Of both."""
        return SplitSize(
            files=self.train.files + self.held_out.files,
            repositories=self.train.repositories + self.held_out.repositories,
            bytes=self.train.bytes + self.held_out.bytes,
        )

    @property
    def summary(self) -> str:
        size = self.size
        of = UNITS["repository"].count(size.repositories)
        return f"{counted(size.files, 'file')} of {of} from elsewhere, to see what is forgotten"


class TokenizedSplit(Record):
    """One side of the split as chunks of `max_length` tokens."""

    files: int
    chunks: int
    tokens: int
    """Real tokens, special ones included, padding not."""
    padding: int
    """Tokens of padding needed to bring every chunk to `max_length`."""
    text_bytes: int
    """UTF-8 bytes of the text that the tokens stand for."""
    replay: int = 0
    """Of the chunks, those of general code."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Files that gave no chunk, by reason."""
    made: dict[str, int] = Field(default_factory=dict)
    """Chunks by what was made of them beyond the format: `middle along syntax: body`, and why not where it was
    wanted."""

    @property
    def padding_share(self) -> float:
        return self.padding / max(1, self.padding + self.tokens)


class TokenizedDataset(Handle):
    """`train.parquet` and `held_out.parquet`, a row per chunk: `input_ids` (list of int32, at most `max_length`, not
    padded), `completion_mask` (list of int8, 1 where the loss counts; only where it does not count everywhere), and
    where it came from: `repo, path, sha256, language, chunk` (number within the file, from 0; -1 for a question about
    it). Chunks of a file stand in order, questions behind them."""

    format: Literal["causal", "fim", "instruct"]
    max_length: int
    train: TokenizedSplit
    held_out: TokenizedSplit

    @property
    def summary(self) -> str:
        return (
            f"{self.train.chunks:,} chunks of {self.max_length} tokens, {self.train.padding_share:.1%} padding; "
            f"{self.held_out.chunks:,} held out"
        )
