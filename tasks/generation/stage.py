"""The stage: prompts → what base, base again and tuned make of them, in files that scoring works on.

What is made of one file of the prompts, the losses' or a suite's, is an artifact of its own. Its key has the file's
fingerprint and no other's, so another suite has only its own prompts answered; the model is loaded once for all that
the store does not have. Of a form that is shipped, what the base makes of a file is another artifact: it depends on no
export.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.digest import Fingerprinted
from artifacts.presentation import Section
from artifacts.progress import SILENT, Progress
from artifacts.rows import read_rows, write_rows
from artifacts.schema import (
    ExportedModel,
    FileAnswers,
    Generations,
    GenerationSpeed,
    Plan,
    PromptFile,
    PromptSet,
    QuantizedBase,
)
from tasks.generation.config import GenerationConfig
from tasks.generation.models import SIDES, Pair, Side, threads
from tasks.generation.shipped import ShippedPair
from tasks.generation.view import sections
from tasks.generation.work import Answering, Losses, Programs, Work, measure
from tasks.models.base_model import ModelReference, fetch
from tasks.models.vocabulary import load_tokenizer
from tasks.running.stage import Parts, Stage

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
VERSION = 8
"""Of the stage and of what it is put together from."""

log = logging.getLogger(__name__)


def run_generation(
    config: GenerationConfig,
    *,
    model: ModelReference,
    prompts: PromptSet,
    exported: ExportedModel,
    plan: Plan,
    base: QuantizedBase | None = None,
    parts: Parts,
    workdir: Path,
    progress: Progress = SILENT,
) -> Generations:
    """Put base, base again and tuned through every file, and write `losses`, `completions` and the problems.

    `base`: the model quantized as `config.quantization` says, if there is one to read. `parts` has what was made of a
    file before. On a CPU the same inputs give the same bytes.

    Raises:
        InputError: the adapter does not fit the model, or one of both computes no numbers.
        StageError: a loss is not finite.
    """
    loaded: list[Pair] = []

    def pair() -> Pair:
        """Both models, loaded when they are first needed."""
        if not loaded:
            folder = base.path if base and not config.form else fetch(model, progress)
            progress.begin("loading the model")
            if config.form:
                loaded.append(ShippedPair(folder, exported, config.form, load_tokenizer(model.metadata), workdir))
            else:
                loaded.append(Pair(folder, exported.path / "adapter", config.quantization, plan))
        return loaded[0]

    def part(sides: Sequence[Side], work: Work, **given: Fingerprinted | None) -> FileAnswers:
        def run(_: GenerationConfig, *, workdir: Path, progress: Progress, **_inputs: object) -> FileAnswers:
            return _answer(copy(work), pair(), config.repeated, workdir, progress, sides)

        return parts(replace(ANSWERS, run=run), config, progress, model=model, **given)

    def answers(file: PromptFile, work: Work) -> tuple[FileAnswers, ...]:
        if config.form:
            base_alone = part(SIDES[:2], work, asked=file)
            return base_alone, part(SIDES[2:], work, asked=file, exported=exported)
        return (part(SIDES, work, asked=file, exported=exported, plan=plan, base=base),)

    works = {file: _work(file, prompts, model, config) for file in (prompts.losses, *prompts.suites)}
    try:
        with threads(config.cpu_threads):
            made = {file: answers(file, work) for file, work in works.items()}
    finally:
        for one in loaded:
            one.release()
    losses, *suites = (
        [
            {name: value for one in rows for name, value in one.items()}
            for rows in zip(work.rows, *(read_rows(one.path / "sides.parquet") for one in made[file]), strict=True)
        ]
        for file, work in works.items()
    )
    all_parts = [one for of_file in made.values() for one in of_file]
    counted = [{**row, "tokens": sum(row["counts"])} for row in losses]
    write_rows(counted, workdir / "losses.parquet", LOSS_COLUMNS)
    completions = [{**row, "item": number} for number, row in enumerate(row for suite in suites for row in suite)]
    write_rows(completions, workdir / "completions.parquet", COMPLETION_COLUMNS)
    if prompts.functional:
        shutil.copytree(prompts.path / "problems", workdir / "problems")
    return Generations(
        path=workdir,
        notes=prompts.notes,
        quantization=config.quantization,
        form=config.form or "",
        losses=len(losses),
        completions=len(completions),
        functional=prompts.functional,
        speed=_speed(all_parts),
        parts=tuple(one.place for one in all_parts if one.place),
        held_out_by=prompts.held_out_by,
    )


def _work(file: PromptFile, prompts: PromptSet, model: ModelReference, config: GenerationConfig) -> Work:
    """What is to be done with a file."""
    rows = read_rows(prompts.path / file.file)
    if file == prompts.losses:
        return Losses(rows, config.batch_size)
    programs = next(
        (
            Programs.read(prompts.path / "problems" / f"{suite.name}.jsonl", instructed=suite.instructed)
            for suite in prompts.functional
            if suite.name == file.name
        ),
        None,
    )
    return Answering(file.name, rows, load_tokenizer(model.metadata), config.batch_size, programs)


def _answer(
    work: Work, pair: Pair, repeated: float, workdir: Path, progress: Progress, sides: Sequence[Side]
) -> FileAnswers:
    """What sides make of a file, row by row."""
    made = measure(work, pair, repeated, progress, sides)
    kind = "string" if isinstance(work, Answering) else "float64"
    write_rows(made, workdir / "sides.parquet", dict.fromkeys(sides, kind))
    speed: dict[str, Any] = {}
    if isinstance(work, Answering):
        speed = {"tokens": work.tokens, "completions": work.completions, "seconds": work.seconds}
    return FileAnswers(path=workdir, backend=pair.backend, **speed)


def _speed(made: Collection[FileAnswers]) -> GenerationSpeed | None:
    """Of all answers of all sides, whenever they were made; None when there are none."""
    answers = [one for one in made if one.seconds]
    seconds = sum(one.seconds for one in answers)
    if not seconds:
        return None
    speed = GenerationSpeed(
        backend=" and ".join(sorted({one.backend for one in answers})),
        tokens_per_second=sum(one.tokens for one in answers) / seconds,
        completions_per_second=sum(one.completions for one in answers) / seconds,
    )
    log.info("greedy answers, %s: %s", speed.backend, speed.summary)
    return speed


def _nothing(_: FileAnswers) -> list[Section]:
    """Parts are shown as what is put together from them."""
    return []


ANSWERS = Stage(name="answers", version=VERSION, run=_answer, produces=FileAnswers, sections=_nothing)
STAGE = Stage(
    name="generation", version=VERSION, run=run_generation, produces=Generations, sections=sections, in_parts=True
)
SHIPPED = replace(STAGE, name="shipped-generation")
"""The same of a form that is shipped."""
