"""The training stage: checks its inputs, has a process of its own train, hands over the adapter and its metrics."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from artifacts.errors import InputError
from artifacts.progress import Progress
from artifacts.schema import Checkpoint, Plan, QuantizedBase, TokenizedDataset
from tasks.models.base_model import ModelReference, fetch
from tasks.running.stage import Stage
from tasks.training.aside import TrainingRows, set_aside
from tasks.training.batches import arranged
from tasks.training.config import TrainingConfig
from tasks.training.fallback import FallbackPlan, NoMemoryError, in_words
from tasks.training.messages import RESULT, Spec
from tasks.training.supervision import run_worker
from tasks.training.view import sections

log = logging.getLogger(__name__)

DATA = "train.parquet"


def run_training(
    config: TrainingConfig,
    *,
    model: ModelReference,
    tokens: TokenizedDataset,
    plan: Plan,
    base: QuantizedBase | None = None,
    workdir: Path,
    progress: Progress,
) -> Checkpoint:
    """Train the adapter; continue from the newest checkpoint in `workdir` if an earlier attempt left one. When memory
    runs out in a step, go on from there with a smaller micro-batch and the same effective batch.

    With `base`, the model's own weights are not downloaded; without, they are quantized while they are read.

    Raises:
        InputError: fewer chunks than one optimizer step takes; layers that the model does not have.
        StageError: training diverged or was killed, or memory ran out and nothing smaller is left. Checkpoints stay
            in `workdir`.
        TransientError: the hub did not deliver the weights.
    """
    config.check()
    if plan.effective_batch != config.effective_batch:
        raise InputError(
            f"the plan's batch of {plan.batch_in_words} is not {config.effective_batch}",
            field="training.effective_batch",
            remedy="plan again for this configuration",
        )
    data = tokens.path / DATA
    rows, sequences = learned_from(config, tokens)
    if config.packing:
        log.info("%d chunks are packed into %d sequences (training.packing)", len(rows.learned), sequences)
    if config.validation is not None:
        log.info("%d chunks of %d %s are set aside for validation", len(rows.aside), rows.units, rows.unit)
    if config.epochs is not None:
        epochs = config.passes(tokens.train.tokens)
        config = config.counted(sequences, tokens.train.tokens)
        log.info("%g epochs of %d sequences are %d steps (training.epochs)", epochs, sequences, config.steps)
    most = config.steps * plan.effective_batch * tokens.max_length
    if most < tokens.train.tokens:
        share = most / tokens.train.tokens
        log.info("%d steps see %.2g%% of the training tokens at most (training.max_steps)", config.steps, 100 * share)
    folder = base.path if base else fetch(model, progress)
    spec = Spec(
        config=config,
        plan=plan,
        tokens=tokens,
        data=str(data.absolute()),
        model=str(folder.absolute()),
        model_name=model.name,
        model_revision=model.revision,
        parent=os.getpid(),
    )
    course = FallbackPlan.of(plan, workdir)
    if course.fallbacks:
        log.info("training with %s, because an earlier attempt was %s", in_words(course.plan), course.fallbacks[-1])
    while True:  # one process after the other, until one finds memory enough for its plan
        try:
            fields = run_worker(spec.model_copy(update={"plan": course.plan}), workdir, progress)
            return Checkpoint(path=workdir / RESULT, fallbacks=course.fallbacks, **fields)
        except NoMemoryError as error:
            before, course = course, course.after(error)
            course.keep(workdir)
            smaller = in_words(course.plan)
            log.warning("%s; %s did not fit, continuing with %s", error.problem, in_words(before.plan), smaller)
            progress.begin(f"out of memory: continuing with {smaller}")


def learned_from(config: TrainingConfig, tokens: TokenizedDataset) -> tuple[TrainingRows, int]:
    """Which chunks are learned from, and how many sequences they make.

    Raises:
        InputError: fewer than one optimizer step takes; all text is of one file, and some is to be set aside.
    """
    data = tokens.path / DATA
    rows = set_aside(data, config.validation, config.seed)
    sequences = len(arranged(data, rows, tokens.max_length if config.packing else None))
    check_enough(config, sequences)
    return rows, sequences


def check_enough(config: TrainingConfig, sequences: int) -> None:
    """Refuse fewer sequences than one optimizer step takes."""
    if sequences < config.effective_batch:
        raise InputError(
            f"one optimizer step takes {config.effective_batch} sequences, but the sample gives only {sequences}",
            field="training.effective_batch",
            remedy="raise sampling.files or name more sources, lower training.effective_batch, "
            "or lower tokenization.max_length",
        )


STAGE = Stage(name="training", version=1, run=run_training, produces=Checkpoint, sections=sections, keeps_workdir=True)
