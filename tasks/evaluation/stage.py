"""The stage: items and chunks from the held-out side, both models over them, scores, intervals."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from artifacts.errors import InputError
from artifacts.progress import SILENT, Progress
from artifacts.schema import (
    Completion,
    DatasetSample,
    Engine,
    EvaluationReport,
    ExportedModel,
    GenerationSpeed,
    Plan,
    QuantizedBase,
    TokenizedDataset,
)
from tasks.base_model import ModelReference, fetch
from tasks.evaluation import losses, scoring, suites
from tasks.evaluation.generation import Decoding
from tasks.evaluation.models import SIDES, Pair, Side, threads
from tasks.evaluation.settings import EvaluationConfig
from tasks.evaluation.showing import sections
from tasks.stage import Stage
from tasks.tokenization.settings import context_length
from tasks.tokenization.vocabulary import CodeTokenizer, FimTokens, decode, load_tokenizer

LOSS_COLUMNS = {
    "repo": "string",
    "path": "string",
    "chunk": "int32",
    "tokens": "int32",
    "base_loss": "float64",
    "tuned_loss": "float64",
}
COMPLETION_COLUMNS = {
    "suite": "string",
    "item": "int32",
    "repo": "string",
    "path": "string",
    "language": "string",
    "line": "int32",
    "prompt": "string",
    "suffix": "string",
    "truth": "string",
    "base": "string",
    "tuned": "string",
}
SCORE_COLUMNS = {
    "suite": "string",
    "item": "int32",
    "repo": "string",
    "score": "string",
    "base": "float64",
    "tuned": "float64",
}

log = logging.getLogger(__name__)

SUITES = {"line": suites.line_items, "fim": suites.fim_items}
TITLES = {"line": "completing lines", "fim": "filling in lines"}


def run_evaluation(
    config: EvaluationConfig,
    *,
    model: ModelReference,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    exported: ExportedModel,
    plan: Plan,
    base: QuantizedBase | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Compare base and tuned on held-out text and write `losses`, `completions` and `scores` as Parquet.

    `base`: the model quantized as `config.quantization` says, if there is one to read.
    On a CPU the same inputs give the same bytes.

    Raises:
        InputError: nothing is held out; prompts and answers do not fit the model's context.
        StageError: a loss is not finite.
    """
    _check_context(config, model)
    tokenizer = load_tokenizer(model.metadata)
    chunks = losses.choose(tokens.path / "held_out.parquet", config.max_chunks, config.seed, tokenizer.bos)
    items, notes = _choose_items(suites.read_files(sample.path / "held_out.parquet"), tokenizer, config)
    work = _Work(config, tokenizer, chunks, items, progress)
    folder = base.path if base else fetch(model, progress)
    progress.begin("loading the model")
    with threads(config.cpu_threads):
        pair = Pair(folder, exported.path / "adapter", config.quantization, plan, work.longest)
        try:
            measured = {side: work.measure(pair, side) for side in SIDES}
        finally:
            pair.release()
    loss_rows = _loss_rows(chunks, measured)
    completion_rows = _completion_rows(items, measured)
    _write(loss_rows, workdir / "losses.parquet", LOSS_COLUMNS)
    _write(completion_rows, workdir / "completions.parquet", COMPLETION_COLUMNS)
    return _report(config, workdir, notes, _speed(measured.values(), pair.engine))


def _report(
    config: EvaluationConfig, workdir: Path, notes: list[str], speed: GenerationSpeed | None
) -> EvaluationReport:
    """From the files that the models left to the handle: needs no model."""
    loss_rows, completions = _read(workdir / "losses.parquet"), _read(workdir / "completions.parquet")
    scores = scoring.score(completions)
    _write(scores, workdir / "scores.parquet", SCORE_COLUMNS)
    draws = {"seed": config.seed, "resamples": config.resamples}
    return EvaluationReport(
        path=workdir,
        metrics=(*scoring.loss_metrics(loss_rows, **draws), *scoring.answer_metrics(scores, **draws)),
        notes=tuple(notes),
        samples=tuple(_samples(completions, config)),
        quantization=config.quantization,
        generation=speed,
    )


def _speed(sides: Collection[_Measured], engine: Engine) -> GenerationSpeed | None:
    """Of all answers of both sides; None when there were none."""
    seconds = sum(side.seconds for side in sides)
    if not seconds:
        return None
    speed = GenerationSpeed(
        engine=engine,
        tokens_per_second=sum(side.tokens for side in sides) / seconds,
        completions_per_second=sum(len(side.answers) for side in sides) / seconds,
    )
    log.info("greedy answers, %s: %s", engine, speed.summary)
    return speed


@dataclass(frozen=True)
class _Measured:
    """What one side did."""

    losses: list[float]
    answers: list[str]
    tokens: int
    """Of the answers."""
    seconds: float
    """That they took."""


@dataclass(frozen=True)
class _Work:
    """What both sides are put through, in the same order and batches."""

    config: EvaluationConfig
    tokenizer: CodeTokenizer
    chunks: Sequence[losses.Chunk]
    items: Sequence[suites.Item]
    progress: Progress

    @property
    def longest(self) -> int:
        """Tokens of the longest text that a model will see."""
        prompts = (len(item.prompt_ids) + self.config.max_new_tokens for item in self.items)
        return max(*(len(chunk.input_ids) for chunk in self.chunks), *prompts)

    def measure(self, pair: Pair, side: Side) -> _Measured:
        with pair.side(side) as computing:
            self.progress.begin(f"held-out loss, {side}", len(self.chunks), "chunks")
            found = losses.measure(computing, self.chunks, self.config.batch_size, self.progress.advance)
            answers: list[list[int]] = []
            seconds = 0.0
            for suite, title in TITLES.items():
                prompts = [item.prompt_ids for item in self.items if item.suite == suite]
                if prompts:
                    self.progress.begin(f"{title}, {side}", len(prompts), "prompts")
                    started = time.perf_counter()
                    answers += computing.generate(prompts, self._decoding(), self.progress.advance)
                    seconds += time.perf_counter() - started
        return _Measured(found, list(map(self._text, answers)), sum(map(len, answers)), seconds)

    def _decoding(self) -> Decoding:
        """Answers end with the line: at a token that holds a line break, at the end of the middle or of the text."""
        tokenizer = self.tokenizer
        breaks = {index for index, piece in enumerate(tokenizer.pieces) if b"\n" in piece}
        ends = {index for index in (tokenizer.eos, _end_of_middle(tokenizer)) if index is not None}
        pad = tokenizer.ids.get("<unk>", 0)
        return Decoding(self.config.batch_size, self.config.max_new_tokens, frozenset(breaks | ends), pad)

    def _text(self, answer: list[int]) -> str:
        return decode(self.tokenizer, answer, continues=True).partition("\n")[0]


def _end_of_middle(tokenizer: CodeTokenizer) -> int | None:
    try:
        return FimTokens.of(tokenizer).end
    except InputError:
        return None


def _choose_items(
    files: Sequence[suites.SourceFile], tokenizer: CodeTokenizer, config: EvaluationConfig
) -> tuple[list[suites.Item], list[str]]:
    """The items of all suites, by suite, and why there are none of some."""
    items: list[suites.Item] = []
    notes: list[str] = []
    for suite, wanted in (("line", config.line_prompts), ("fim", config.fim_prompts)):
        title = TITLES[suite].capitalize()
        if not wanted:
            notes.append(f"{title} was not measured: evaluation.{suite}_prompts is 0.")
            continue
        try:
            found = SUITES[suite](files, tokenizer, config)
        except InputError as error:
            notes.append(f"{title} was not measured: {error.problem}.")
            continue
        if not found:
            notes.append(f"{title} was not measured: no line of the held-out files is worth asking for.")
        items += found
    for note in notes:
        log.info("%s", note)
    return items, notes


def _check_context(config: EvaluationConfig, model: ModelReference) -> None:
    context = context_length(model)
    needed = config.prompt_tokens + config.max_new_tokens
    if context is not None and needed > context:
        raise InputError(
            f"prompts and answers of {needed} tokens do not fit the context of {model.name}, which is {context}",
            field="evaluation.prompt_tokens",
            remedy=f"set evaluation.prompt_tokens to {context - config.max_new_tokens} or less",
        )


def _loss_rows(chunks: Sequence[losses.Chunk], measured: Mapping[Side, _Measured]) -> list[dict[str, Any]]:
    return [
        {
            "repo": chunk.repo,
            "path": chunk.path,
            "chunk": chunk.chunk,
            "tokens": chunk.tokens,
            **{f"{side}_loss": measured[side].losses[index] for side in SIDES},
        }
        for index, chunk in enumerate(chunks)
    ]


def _completion_rows(items: Sequence[suites.Item], measured: Mapping[Side, _Measured]) -> list[dict[str, Any]]:
    names = ("suite", "repo", "path", "language", "line", "prompt", "suffix", "truth")
    return [
        {
            "item": index,
            **{name: getattr(item, name) for name in names},
            **{side: measured[side].answers[index] for side in SIDES},
        }
        for index, item in enumerate(items)
    ]


def _samples(completions: Sequence[Mapping[str, Any]], config: EvaluationConfig) -> Iterator[Completion]:
    """Chosen by seed, one of each suite in turn."""
    order = suites.spread([row["suite"] for row in completions], random.Random(f"samples {config.seed}"))
    for index in islice(order, config.samples):
        row = completions[index]
        names = ("repo", "path", "prompt", "suffix", "truth", "base", "tuned")
        yield Completion(kind=row["suite"], **{name: row[name] for name in names})


def _write(rows: list[dict[str, Any]], path: Path, columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


STAGE = Stage(name="evaluation", version=3, run=run_evaluation, produces=EvaluationReport, show=sections)
