"""The stage: what is asked, all sides over it, and the files that scoring works on."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.errors import InputError
from artifacts.progress import SILENT, Progress
from artifacts.schema import (
    DatasetSample,
    ExportedModel,
    Generations,
    GenerationSpeed,
    Plan,
    QuantizedBase,
    TokenizedDataset,
)
from tasks.families.chat import find_template
from tasks.generation import losses, overlaps, problems, suites
from tasks.generation.config import GenerationConfig
from tasks.generation.models import Pair, threads
from tasks.generation.problems import Asked
from tasks.generation.view import sections
from tasks.generation.work import TITLES, Measured, Work, rows
from tasks.models.base_model import ModelReference, fetch
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer
from tasks.running.stage import Stage
from tasks.tokenization.config import context_length

LOSS_COLUMNS = {
    **dict.fromkeys(("domain", "repo", "path", "language"), "string"),
    **dict.fromkeys(("chunk", "tokens"), "int32"),
    **dict.fromkeys(("base", "again", "tuned"), "float64"),
}
COMPLETION_COLUMNS = {
    **dict.fromkeys(("domain", "suite"), "string"),
    "item": "int32",
    **dict.fromkeys(("repo", "path", "language"), "string"),
    "line": "int32",
    **dict.fromkeys(("prompt", "suffix", "truth", "base", "again", "tuned"), "string"),
}
SUITES = {"line": suites.line_items, "fim": suites.fim_items, "block": suites.block_items}

log = logging.getLogger(__name__)


def run_generation(
    config: GenerationConfig,
    *,
    model: ModelReference,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    exported: ExportedModel,
    plan: Plan,
    base: QuantizedBase | None = None,
    retention: DatasetSample | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> Generations:
    """Put base, base again and tuned through everything, and write `losses`, `completions` and the problems.

    `base`: the model quantized as `config.quantization` says, if there is one to read. `retention`: code from
    outside what was trained on. On a CPU the same inputs give the same bytes.

    Raises:
        InputError: nothing is held out; prompts and answers do not fit the model's context; a functional suite cannot
            be used; the adapter does not fit the model.
        StageError: a loss is not finite.
    """
    check_context(config, model)
    tokenizer = load_tokenizer(model.metadata)
    screened = overlaps.screen(sample, retention, problems.suites(config.functional))
    held_out = tokens.path / "held_out.parquet"
    chunks = losses.choose(held_out, config.max_chunks, config.seed, screened.dropped)
    items, notes = _choose_items(screened.held_out, tokenizer, config)
    if files := screened.retention:
        chunks += losses.cut(files, tokenizer, config.max_chunks, tokens.max_length, config.seed)
        items += _choose_items(files, tokenizer, config)[0]
    asked, unasked = problems.ask(
        screened.suites,
        tokenizer,
        config,
        context=context_length(model),
        template=find_template(model.metadata) if screened.suites else None,
    )
    items += [item for one in asked for item in one.items]
    work = Work(config, tokenizer, chunks, items, {one.suite.name: one for one in asked}, progress)
    folder = base.path if base else fetch(model, progress)
    progress.begin("loading the model")
    with threads(config.cpu_threads):
        pair = Pair(folder, exported.path / "adapter", config.quantization, plan, work.longest)
        try:
            measured = work.measure(pair)
        finally:
            pair.release()
    loss_rows, completion_rows = rows(work, measured)
    _write(loss_rows, workdir / "losses.parquet", LOSS_COLUMNS)
    _write(completion_rows, workdir / "completions.parquet", COMPLETION_COLUMNS)
    _write_problems(asked, workdir / "problems")
    return Generations(
        path=workdir,
        notes=(*notes, *screened.notes, *unasked),
        quantization=config.quantization,
        losses=len(chunks),
        completions=len(items),
        contaminated=screened.found,
        looked_at=screened.looked_at,
        functional=tuple(one.record for one in asked),
        speed=_speed(measured.values(), pair.backend),
    )


def _speed(sides: Collection[Measured], backend: str) -> GenerationSpeed | None:
    """Of all answers of all sides; None when there were none."""
    seconds = sum(side.seconds for side in sides)
    if not seconds:
        return None
    speed = GenerationSpeed(
        backend=backend,
        tokens_per_second=sum(side.tokens for side in sides) / seconds,
        completions_per_second=sum(side.completions for side in sides) / seconds,
    )
    log.info("greedy answers, %s: %s", backend, speed.summary)
    return speed


def _choose_items(
    files: Sequence[suites.HeldOutFile], tokenizer: CodeTokenizer, config: GenerationConfig
) -> tuple[list[suites.Item], list[str]]:
    """The items of the suites that need no tests, and why there are none of some."""
    items: list[suites.Item] = []
    notes: list[str] = []
    for suite, choose in SUITES.items():
        title = TITLES[suite].capitalize()
        if not suites.wanted_of(suite, config):  # type: ignore[arg-type]
            notes.append(f"{title} was not measured: generation.{suite}_prompts is 0.")
            continue
        try:
            found = choose(files, tokenizer, config)
        except InputError as error:
            notes.append(f"{title} was not measured: {error.problem}.")
            continue
        if not found:
            notes.append(f"{title} was not measured: no line of the files is worth asking for.")
        items += found
    for note in notes:
        log.info("%s", note)
    return items, notes


def check_context(config: GenerationConfig, model: ModelReference) -> None:
    """Before hours are spent on what ends in prompts that the model cannot read.

    Raises:
        InputError: prompts and answers do not fit the model's context.
    """
    context = context_length(model)
    needed = config.prompt_tokens + suites.answer_tokens("block" if config.block_prompts else "line", config)
    if context is not None and needed > context:
        raise InputError(
            f"prompts and answers of {needed} tokens do not fit the context of {model.name}, which is {context}",
            field="generation.prompt_tokens",
            remedy=f"set generation.prompt_tokens to {context - (needed - config.prompt_tokens)} or less",
        )


def _write_problems(asked: Sequence[Asked], folder: Path) -> None:
    """Suites as they were asked: their programs are run without the hub, the suite's file or the model."""
    for one in asked:
        folder.mkdir(exist_ok=True)
        lines = (json.dumps(problem.model_dump()) for problem in one.suite.problems)
        (folder / f"{one.suite.name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write(found: list[dict[str, Any]], path: Path, columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist(found, schema), path)


STAGE = Stage(
    name="generation",
    version=6,
    run=run_generation,
    produces=Generations,
    sections=sections,
    identify=problems.suites_fingerprint,
)
