"""The stage: prompts → what base, base again and tuned make of them, in files that scoring works on."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from artifacts.progress import SILENT, Progress
from artifacts.rows import read_rows, write_rows
from artifacts.schema import ExportedModel, Generations, GenerationSpeed, Plan, PromptSet, QuantizedBase
from tasks.generation.config import GenerationConfig
from tasks.generation.models import Pair, threads
from tasks.generation.view import sections
from tasks.generation.work import Answering, Losses, Programs, measure
from tasks.models.base_model import ModelReference, fetch
from tasks.models.vocabulary import load_tokenizer
from tasks.running.stage import Stage

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

log = logging.getLogger(__name__)


def run_generation(
    config: GenerationConfig,
    *,
    model: ModelReference,
    prompts: PromptSet,
    exported: ExportedModel,
    plan: Plan,
    base: QuantizedBase | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> Generations:
    """Put base, base again and tuned through everything, and write `losses`, `completions` and the problems.

    `base`: the model quantized as `config.quantization` says, if there is one to read. On a CPU the same inputs give
    the same bytes.

    Raises:
        InputError: the adapter does not fit the model, or one of both computes no numbers.
        StageError: a loss is not finite.
    """
    folder = base.path if base else fetch(model, progress)
    progress.begin("loading the model")
    losses = Losses(read_rows(prompts.path / prompts.losses.file), config.batch_size)
    suites = list(_suites(prompts, model, config))
    with threads(config.cpu_threads):
        pair = Pair(folder, exported.path / "adapter", config.quantization, plan)
        try:
            sums = measure(losses, pair, config.repeated, progress)
            answers = [measure(suite, pair, config.repeated, progress) for suite in suites]
        finally:
            pair.release()
    counted = [{**row, "tokens": sum(row["counts"]), **sides} for row, sides in zip(losses.rows, sums, strict=True)]
    write_rows(counted, workdir / "losses.parquet", LOSS_COLUMNS)
    answered = [
        {**row, **sides}
        for suite, made in zip(suites, answers, strict=True)
        for row, sides in zip(suite.rows, made, strict=True)
    ]
    numbered = ({**row, "item": number} for number, row in enumerate(answered))
    write_rows(numbered, workdir / "completions.parquet", COMPLETION_COLUMNS)
    if prompts.functional:
        shutil.copytree(prompts.path / "problems", workdir / "problems")
    return Generations(
        path=workdir,
        notes=prompts.notes,
        quantization=config.quantization,
        losses=len(counted),
        completions=len(answered),
        functional=prompts.functional,
        speed=_speed(suites, pair.backend),
    )


def _suites(prompts: PromptSet, model: ModelReference, config: GenerationConfig) -> Iterator[Answering]:
    tokenizer = load_tokenizer(model.metadata)
    instructed = {suite.name: suite.instructed for suite in prompts.functional}
    for suite in prompts.suites:
        programs = None
        if suite.name in instructed:
            path = prompts.path / "problems" / f"{suite.name}.jsonl"
            programs = Programs.read(path, instructed=instructed[suite.name])
        yield Answering(
            suite.name, read_rows(prompts.path / suite.file), tokenizer, config.batch_size, programs=programs
        )


def _speed(suites: Collection[Answering], backend: str) -> GenerationSpeed | None:
    """Of all answers of all sides; None when there were none."""
    seconds = sum(suite.seconds for suite in suites)
    if not seconds:
        return None
    speed = GenerationSpeed(
        backend=backend,
        tokens_per_second=sum(suite.tokens for suite in suites) / seconds,
        completions_per_second=sum(suite.completions for suite in suites) / seconds,
    )
    log.info("greedy answers, %s: %s", backend, speed.summary)
    return speed


STAGE = Stage(name="generation", version=7, run=run_generation, produces=Generations, sections=sections)
