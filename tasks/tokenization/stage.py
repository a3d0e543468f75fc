"""The stage: the sample's files, a few at a time, into chunks in Parquet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import InputError
from artifacts.paths import shown
from artifacts.progress import SILENT, Progress
from artifacts.rows import each_row
from artifacts.schema import REPLAY, DatasetSample, RetentionSample, TokenizedDataset, TokenizedSplit
from tasks.families.chat import ChatTemplate, find_template
from tasks.families.marks import FimTokens
from tasks.families.prompting import CHARACTERS_PER_TOKEN
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import CodeTokenizer, encode_batch, load_tokenizer
from tasks.related import Repositories
from tasks.running.mapping import HERE, Mapper
from tasks.running.stage import Stage
from tasks.tokenization.chunks import Chunk, Framing, TokenizedFile, causal_chunks, instruct_chunks
from tasks.tokenization.config import Format, TokenizationConfig, chat_template, check_tokenization
from tasks.tokenization.infilling import Infilling
from tasks.tokenization.questions import NUMBER, Asking
from tasks.tokenization.syntax import UNUSABLE, package, unusable
from tasks.tokenization.view import sections

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

log = logging.getLogger(__name__)

Chunker = Callable[[TokenizedFile], Iterator[Chunk]]

COLUMNS = ("repo", "path", "sha256", "language", "content")
GROUP_ROWS, GROUP_TOKENS = 4096, 1 << 19
"""Where a row group of the result ends, in rows or tokens: bounded memory, and bytes that depend on content only."""

INEXACT = "cannot be tokenized exactly"
MOST_INEXACT = 0.1
"""The share of files that a tokenizer may fail on. Those that are published for code fail on none."""


def run_tokenization(
    config: TokenizationConfig,
    *,
    sample: DatasetSample,
    model: ModelReference,
    workdir: Path,
    progress: Progress = SILENT,
    mapper: Mapper = HERE,
) -> TokenizedDataset:
    """Write `train.parquet` in the configured format and `held_out.parquet` in the causal one.

    `mapper` makes chunks of texts: both travel as values, and so does the tokenizer.

    Raises:
        InputError: what `check_tokenization` finds; a sample of which nothing, or too little, can be tokenized.
    """
    check_tokenization(config.format, config.max_length, model)
    tokenizer = load_tokenizer(model.metadata)
    template = find_template(model.metadata) if config.format == "instruct" else None
    asking = None
    if config.question_rate:
        chat = chat_template(model, "tokenization.question_rate", "set tokenization.question_rate=0")
        asking = Asking(config.question_rate, config.seed, chat, config.max_length)
    sizes = {}
    for split, form in (("train", config.format), ("held_out", "causal")):
        encoder = Encoder(config, form, tokenizer, template, asking if split == "train" else None)
        progress.begin(f"tokenizing {split.replace('_', ' ')}", getattr(sample, split).files, "files")
        context = config.context if form == "fim" else None
        writer = _Writer(workdir / f"{split}.parquet", masked=form == "instruct" or bool(context or encoder.asking))
        source = sample.path / f"{split}.parquet"
        with ExitStack() as stack:
            batches = _batches(source, config.batch_bytes)
            if context:
                length = context.max_tokens * CHARACTERS_PER_TOKEN
                repositories = stack.enter_context(Repositories(each_row([source], COLUMNS), workdir, length))
                batches = _with_related(batches, repositories)
            encoded: Iterator[list[Encoded]] = mapper.map("tokenizing part", encoder, batches)
            if split == "train" and sample.replay:
                encoded = _with_share(encoded, sample.replay.share)
            sizes[split] = _write(encoded, writer, config.max_length, progress)
    if missing := sorted({what.partition(UNUSABLE)[2].strip() for what in sizes["train"].made if UNUSABLE in what}):
        log.warning(
            "of %s all middles are drawn by lines, since a grammar is missing or made for another tree-sitter; install"
            " %s again",
            ", ".join(missing),
            ", ".join(map(package, missing)),
        )
    if not sizes["train"].chunks:
        raise InputError(
            f"no file of the sample gave any tokens ({_reasons(sizes['train'].dropped)})",
            field="retention.source" if isinstance(sample, RetentionSample) else "sampling.source",
            remedy="choose a source with text files that are not empty",
        )
    return TokenizedDataset(path=workdir, format=config.format, max_length=config.max_length, **sizes)


def _chunker(
    config: TokenizationConfig, form: Format | str, tokenizer: CodeTokenizer, template: ChatTemplate | None
) -> Chunker:
    framing = Framing.of(tokenizer, config.max_length, add_eos=config.add_eos)
    match form:
        case "fim":
            rates = config.fim_rate, config.spm_rate, config.seed, config.syntax_rate
            infilling = Infilling(FimTokens.of(tokenizer), *rates, config.context)
            return partial(infilling.chunks, tokenizer, framing=framing)
        case "instruct":
            assert template
            return partial(instruct_chunks, tokenizer, framing=framing, template=template)
        case _:
            return partial(causal_chunks, tokenizer, framing=framing)


@dataclass(frozen=True)
class Encoded:
    """A file as chunks."""

    origin: dict[str, str]
    """`repo`, `path`, `sha256`, `language`."""
    text_bytes: int
    chunks: list[tuple[int, Any, Any]]
    """Number, ids and, where only some count, mask: numpy arrays of int32 and int8."""
    dropped: str = ""
    """Why there are none."""
    made: Counter[str] = field(default_factory=Counter)
    """Chunks by what was made of them."""

    @property
    def is_replay(self) -> bool:
        return self.origin["repo"].startswith(REPLAY)


@dataclass(frozen=True)
class Encoder:
    """Makes chunks of files: a function that travels."""

    config: TokenizationConfig
    form: str
    tokenizer: CodeTokenizer
    template: ChatTemplate | None = None
    """For `instruct`: the model's."""
    asking: Asking | None = None
    """Where questions are asked beside the files."""

    def __call__(self, batch: list[dict[str, Any]]) -> list[Encoded]:
        chunker = _chunker(self.config, self.form, self.tokenizer, self.template)
        encoded = encode_batch(self.tokenizer, [row["content"] for row in batch])
        return [self._encoded(row, ids, chunker) for row, ids in zip(batch, encoded, strict=True)]

    def _encoded(self, row: dict[str, Any], ids: list[int] | None, chunker: Chunker) -> Encoded:
        import numpy as np

        origin: dict[str, str] = {name: row[name] for name in COLUMNS if name != "content"}
        if not ids:
            return Encoded(origin, 0, [], "empty" if ids is not None else INEXACT)
        named = {**origin, "repo": origin["repo"].removeprefix(REPLAY)}  # a text tells the repository's own name
        document = TokenizedFile(ids=ids, **named, related=row.get("related", ()))
        found = [(number, chunk) for number, chunk in enumerate(chunker(document))]
        if self.asking:
            found += [(NUMBER, chunk) for chunk in self.asking.chunks(self.tokenizer, document, len(found))]
        chunks = [
            (number, np.array(chunk.ids, np.int32), None if chunk.mask is None else np.array(chunk.mask, np.int8))
            for number, chunk in found
        ]
        made = Counter(what for _, chunk in found for what in chunk.made)
        return Encoded(origin, len(row["content"].encode()), chunks, made=made)


def _with_share(encoded: Iterator[list[Encoded]], share: float) -> Iterator[list[Encoded]]:
    """As many chunks of general code, which comes last, as are this share of all."""
    own = general = 0
    for files in encoded:
        kept = []
        for file in files:
            if file.is_replay:
                left = max(0, round(own * share / (1 - share)) - general)
                if left < len(file.chunks):
                    text = file.text_bytes * left // len(file.chunks)
                    file = replace(file, chunks=file.chunks[:left], text_bytes=text, made=Counter())
                general += len(file.chunks)
            else:
                own += len(file.chunks)
            if file.chunks or file.dropped:
                kept.append(file)
        yield kept
    if general < round(own * share / (1 - share)):
        log.warning(
            "replay is %.2g%% of the training chunks instead of %.2g%%: there is no more general code; raise "
            "sampling.replay.files or name a larger sampling.replay.source",
            100 * general / max(1, own + general),
            100 * share,
        )


def _write(encoded: Iterator[list[Encoded]], writer: _Writer, max_length: int, progress: Progress) -> TokenizedSplit:
    sums: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    made: Counter[str] = Counter()
    first: dict[str, dict[str, str]] = {}
    for files in encoded:
        for file in files:
            if file.dropped:
                dropped[file.dropped] += 1
                first.setdefault(file.dropped, file.origin)
                log.debug("left out %s/%s", file.origin["repo"], file.origin["path"])
                continue
            tokens = sum(writer.add(file, chunk) for chunk in file.chunks)
            sums.update(files=1, chunks=len(file.chunks), tokens=tokens, text_bytes=file.text_bytes)
            sums["replay"] += len(file.chunks) * file.is_replay
            made += file.made
        progress.update(sums["files"] + dropped.total(), tokens=sums["tokens"])
    writer.close()
    if dropped:
        log.warning("%s: left out %s", writer.path.name, _reasons(dropped))
    files_with_text = sums["files"] + dropped[INEXACT]
    if dropped[INEXACT] > MOST_INEXACT * files_with_text:
        raise InputError(
            f"the model's tokenizer has no tokens that give {dropped[INEXACT]:,} of {files_with_text:,} files back "
            f"({dropped[INEXACT] / files_with_text:.0%}), such as {shown('{repo}/{path}'.format(**first[INEXACT]))}",
            field="model.name",
            remedy="use a model whose tokenizer knows all characters of your files, or leave such files out of "
            "sampling.source",
        )
    counts = {name: sums[name] for name in ("files", "chunks", "tokens", "text_bytes", "replay")}
    padding = sums["chunks"] * max_length - sums["tokens"]
    return TokenizedSplit(**counts, padding=padding, dropped=dict(dropped), made=dict(sorted(made.items())))


def _batches(source: Path, size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of a Parquet file in order, together about `size` characters; little more is in memory."""
    batch: list[dict[str, Any]] = []
    total = 0
    for row in each_row([source], COLUMNS):
        batch.append(row)
        total += len(row["content"])
        if total >= size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _with_related(
    batches: Iterator[list[dict[str, Any]]], repositories: Repositories
) -> Iterator[list[dict[str, Any]]]:
    """The same rows, each with the files that it may stand behind: of this side of the split alone."""
    for batch in batches:
        yield [{**row, "related": repositories.related(row)} for row in batch]


@dataclass
class _Writer:
    """Collects chunks and writes them to a Parquet file in row groups of bounded size."""

    path: Path
    masked: bool
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _tokens: int = 0
    _file: pq.ParquetWriter | None = None

    def add(self, file: Encoded, chunk: tuple[int, Any, Any]) -> int:
        """Take one chunk; returns its length."""
        number, ids, mask = chunk
        row = {"input_ids": ids, **file.origin, "chunk": number}
        if self.masked:
            row["completion_mask"] = [1] * len(ids) if mask is None else mask
        self._rows.append(row)
        self._tokens += len(ids)
        if len(self._rows) >= GROUP_ROWS or self._tokens >= GROUP_TOKENS:
            self._flush()
        return len(ids)

    def close(self) -> None:
        """Write what is left; a file without rows is a valid Parquet file too."""
        self._flush()
        assert self._file is not None
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema(self.masked)
        if self._file is None:
            self._file = pq.ParquetWriter(self.path, schema, compression="zstd")
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema))
        self._rows, self._tokens = [], 0


def _schema(masked: bool) -> pa.Schema:
    import pyarrow as pa

    mask = [("completion_mask", pa.list_(pa.int8()))] if masked else []
    names = [(name, pa.string()) for name in ("repo", "path", "sha256", "language")]
    return pa.schema([("input_ids", pa.list_(pa.int32())), *mask, *names, ("chunk", pa.int32())])


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} files: {reason}" for reason, count in sorted(dropped.items())) or "no files"


def grammars_fingerprint(config: TokenizationConfig) -> str | None:
    """The grammars that are asked for and cannot be loaded: once they are installed, other middles are drawn."""
    asked = config.format == "fim" and config.syntax_rate
    return (", ".join(unusable()) or None) if asked or config.question_rate else None


STAGE = Stage(
    name="tokenization",
    version=3,
    run=run_tokenization,
    produces=TokenizedDataset,
    sections=sections,
    identify=grammars_fingerprint,
    parallel=True,
    needs_gpu=False,
)
RETENTION = replace(STAGE, name="retention-tokens")
"""The same for code from outside what is trained on; with settings of `TokenizationConfig.held_out`."""
