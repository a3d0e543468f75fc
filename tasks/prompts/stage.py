"""The stage: held-out code, code from elsewhere and functional suites → what both models are asked. Needs no model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from artifacts import digest
from artifacts.errors import InputError
from artifacts.progress import SILENT, Progress
from artifacts.rows import FLAGS, IDS, Row, write_rows
from artifacts.schema import DatasetSample, PromptFile, PromptSet, TokenizedDataset
from tasks.families.chat import find_template
from tasks.functional import write_problems
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer
from tasks.prompts import gaps, overlaps, problems, sequences
from tasks.prompts.config import PromptsConfig
from tasks.prompts.files import HeldOutFiles
from tasks.prompts.gaps import SuiteName
from tasks.prompts.problems import Asked
from tasks.prompts.view import sections
from tasks.running.stage import Stage
from tasks.tokenization.config import context_length

SEQUENCE_COLUMNS = {
    **dict.fromkeys(("domain", "repo", "path", "language"), "string"),
    "chunk": "int32",
    "input_ids": IDS,
    "counts": FLAGS,
}
ITEM_COLUMNS = {
    **dict.fromkeys(("domain", "suite", "repo", "path", "language"), "string"),
    "line": "int32",
    **dict.fromkeys(("prompt", "suffix", "truth"), "string"),
    "prompt_ids": IDS,
    "start": "binary",
    "new_tokens": "int32",
}
Choosing = Callable[[HeldOutFiles, CodeTokenizer, PromptsConfig], list[gaps.Item]]
SUITES: dict[SuiteName, Choosing] = {
    "line": gaps.line_items,
    "fim": gaps.fim_items,
    "block": gaps.block_items,
    "context": gaps.context_items,
}
_TITLES = {
    "line": "Completing lines",
    "fim": "Filling in lines",
    "block": "Filling in blocks",
    "context": "Filling in lines behind other files",
}

log = logging.getLogger(__name__)


def run_prompts(
    config: PromptsConfig,
    *,
    model: ModelReference,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    retention: DatasetSample | None = None,
    retention_tokens: TokenizedDataset | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> PromptSet:
    """Choose, leave out what stands in the training data, and write a file for the losses and one for every suite.

    `retention`: code from outside what is trained on, and `retention_tokens` the same tokenized. The same inputs give
    the same bytes.

    Raises:
        InputError: nothing is held out; prompts and answers do not fit the model's context; a functional suite cannot
            be used.
    """
    check_context(config, model)
    progress.begin("looking for copies in the training data")
    tokenizer = load_tokenizer(model.metadata)
    screened = overlaps.screen(sample, retention, problems.suites(config.functional), workdir)
    progress.begin("choosing what is asked")
    held_out = tokens.path / "held_out.parquet"
    if sample.added_lines:
        files = replace(screened.held_out, left_out=())  # chunks of these are passed over
        chunks = sequences.choose_added(held_out, files, tokenizer, config.max_chunks, config.seed, screened.dropped)
    else:
        chunks = sequences.choose([held_out], config.max_chunks, config.seed, screened.dropped)
    if not chunks:
        raise InputError(
            "no held-out text is left to measure the loss on",
            field="sampling",
            remedy="take files of more repositories, or hold out a larger share of them",
        )
    if retention_tokens:
        both = [retention_tokens.path / f"{side}.parquet" for side in ("held_out", "train")]
        chunks += sequences.choose(both, config.max_chunks, config.seed, screened.dropped, "retention")
    losses = _written("losses", "losses.parquet", map(asdict, chunks), workdir, SEQUENCE_COLUMNS)
    suites, notes = [], []
    for suite in SUITES:
        if suite == "context" and not (config.context_tokens and config.fim_prompts):
            continue
        items, why = _chosen(suite, screened, tokenizer, config, progress)
        notes += why
        if items:
            suites.append(_write_suite(suite, items, workdir))
    asked, unasked = problems.ask(
        screened.suites,
        tokenizer,
        config,
        context=context_length(model),
        template=find_template(model.metadata) if screened.suites else None,
    )
    suites += [_write_suite(one.suite.name, one.items, workdir, one) for one in asked]
    return PromptSet(
        path=workdir,
        losses=losses,
        suites=tuple(suites),
        functional=tuple(one.record for one in asked),
        notes=(*notes, *screened.notes, *unasked),
        contaminated=screened.found,
        looked_at=screened.looked_at,
        held_out_by=sample.held_out_by,
    )


def _chosen(
    suite: SuiteName,
    screened: overlaps.Screened,
    tokenizer: CodeTokenizer,
    config: PromptsConfig,
    progress: Progress,
) -> tuple[list[gaps.Item], list[str]]:
    """The items of a suite that needs no tests, of held-out code and of code from elsewhere, or why there are none."""

    items: list[gaps.Item] = []
    reason = ""
    if not gaps.wanted_of(suite, config):
        reason = f"prompts.{suite}_prompts is 0"
    else:
        progress.begin(f"choosing {_TITLES[suite].lower()}")
        try:
            items = SUITES[suite](screened.held_out, tokenizer, config)
            none = "no file has related files" if suite == "context" else "no line of the files is worth asking for"
            reason = "" if items else none
            items += SUITES[suite](screened.retention, tokenizer, config)
        except InputError as error:
            reason = error.problem
    notes = [f"{_TITLES[suite]} was not measured: {reason}."] if reason else []
    for note in notes:
        log.info("%s", note)
    return items, notes


def check_context(config: PromptsConfig, model: ModelReference) -> None:
    """Before hours are spent on what ends in prompts that the model cannot read.

    Raises:
        InputError: prompts and answers do not fit the model's context.
    """
    context = context_length(model)
    longest = config.prompt_tokens + (config.context_tokens if config.fim_prompts else 0)
    needed = longest + gaps.answer_tokens("block" if config.block_prompts else "line", config)
    if context is not None and needed > context:
        raise InputError(
            f"prompts and answers of {needed} tokens do not fit the context of {model.name}, which is {context}",
            field="prompts.prompt_tokens",
            remedy=f"set prompts.prompt_tokens to {context - (needed - config.prompt_tokens)} or less",
        )


def _write_suite(name: str, items: Sequence[gaps.Item], workdir: Path, asked: Asked | None = None) -> PromptFile:
    """A suite as it is asked."""
    decides = {}
    if asked:
        write_problems(asked.suite, workdir / "problems" / f"{name}.jsonl")
        decides = {"problems": asked.suite.fingerprint, "instructed": asked.instructed}
    return _written(name, f"suites/{name}.parquet", map(asdict, items), workdir, ITEM_COLUMNS, **decides)


def _written(
    name: str, file: str, rows: Iterable[Row], workdir: Path, columns: dict[str, str], **decides: object
) -> PromptFile:
    """A file, with what else `decides` the answers to it in its fingerprint."""
    rows = list(rows)
    write_rows(rows, workdir / file, columns)
    content = digest.of_json({**decides, "file": digest.of_file(workdir / file)})
    return PromptFile(name=name, file=file, rows=len(rows), fingerprint=content)


STAGE = Stage(
    name="prompts",
    version=3,
    run=run_prompts,
    produces=PromptSet,
    sections=sections,
    identify=problems.suites_fingerprint,
    needs_gpu=False,
)
