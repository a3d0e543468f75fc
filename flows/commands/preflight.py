"""`codetune preflight`: the first stage alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands.options import Budget, Changes, Recipe, StorePath, configure, say_what_is_looked_at

if TYPE_CHECKING:
    from artifacts.presentation import Section
    from artifacts.schema import DatasetSample, Prediction
    from flows.config import PipelineConfig


def preflight(recipe: Recipe, *, changes: Changes = None, budget: Budget = None, store: StorePath = None) -> int:
    """Say whether this machine can run a recipe, and at what cost.

    The plan, the time and the memory that are expected, what is too little. Whether there can be a verdict, where the
    code is on this machine and not too much to be counted in seconds. It runs no stage.
    """
    config = configure(recipe, changes, store, budget)
    from rich.markdown import Markdown

    from artifacts.presentation import to_markdown
    from artifacts.progress import SILENT
    from flows.output import Console
    from tasks.models.base_model import locate
    from tasks.preflight import STAGE
    from tasks.prompts import check_context
    from tasks.sampling import foresight
    from tasks.tokenization import foreseen_sequences
    from tasks.training import check_enough, of_one_file

    config.training.check()
    config.exporting.check(config.generation.forms)
    config.workers.check()
    say_what_is_looked_at(f"the model {config.model.name}")
    with tempfile.TemporaryDirectory() as folder:
        model = locate(config.model)
        report = STAGE.run(config.preflight, model=model, job=config.job(), workdir=Path(folder), progress=SILENT)
        check_context(config.prompts, model)
        console = Console(highlight=False)

        def show(section: Section) -> None:
            console.print(Markdown(f"## {section.title}"))
            for block in section.blocks:
                console.print(Markdown(to_markdown(block), hyperlinks=False))

        for section in STAGE.show(report):
            show(section)
        say_what_is_looked_at("the code")
        sample = _sample(config, Path(folder))
        if sample and config.training.validation and sample.own.files == 1:
            raise of_one_file()
        if sample:
            own, tokens = foreseen_sequences(config.tokenization, sample, model)
            sequences = _with_general(config, own)
            check_enough(config.training, sequences)
            if config.training.epochs is not None:
                show(_training(config, sequences, tokens, report.prediction))
        show(foresight(sample))
    return 0


def _with_general(config: PipelineConfig, own: int) -> int:
    """Sequences of one's own code, with general code and questions beside them."""
    replay = config.sampling.replay
    return round(own / (1 - (replay.share if replay else 0)) / (1 - config.tokenization.question_rate))


def _training(config: PipelineConfig, sequences: int, tokens: int, prediction: Prediction) -> Section:
    """How long the text is trained on, in epochs, steps and time. `tokens`: of one's own code."""
    from artifacts.presentation import Section, Text, duration

    training, replay = config.training, config.sampling.replay
    words = f"About {sequences:,} sequences of {config.tokenization.max_length:,} tokens are trained on"
    words += f", {replay.share:.0%} of them general code" if replay else ""
    steps = training.counted(sequences, tokens).steps
    words += f". {training.passes(tokens):g} epochs of these are about {steps:,} optimizer steps"
    if prediction.budget_steps is not None and prediction.budget_steps < steps:
        words += f", of which the budget has room for {prediction.budget_steps:,}"
        steps = prediction.budget_steps
    if prediction.step_seconds:
        words += f": {duration(steps * prediction.step_seconds)} here"
    early = training.validation and training.validation.patience
    words += ", or less if the text that is set aside is predicted no better" if early else ""
    return Section("training", "The training", (Text(f"{words}."),))


def _sample(config: PipelineConfig, folder: Path) -> DatasetSample | None:
    """What a run would learn from and hold out: from the store, or made in a moment; None where it takes longer."""
    from artifacts.store import Store
    from tasks.running.dry_run import DryRun, Unknown
    from tasks.sampling import STAGE, foreseen

    sampling, store = config.sampling, Store.to_read()
    sources = [sampling.source, *([sampling.replay.source] if sampling.replay else [])]
    here = {source.kind for source in sources} <= {"local", "table"}  # the hub takes its time, or does not answer
    if here and store.manifests(STAGE.name):  # to know its key, all files are read
        found: DatasetSample | Unknown = DryRun(store).stage(STAGE, sampling)
        if not isinstance(found, Unknown):
            return found
    (folder / "sample").mkdir()
    return foreseen(sampling, folder / "sample")
