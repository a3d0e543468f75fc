"""The stage: the trained model in every form that is asked for, each loaded again and compared before it counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.errors import StageError
from artifacts.progress import SILENT, Progress
from artifacts.schema import (
    Checkpoint,
    DatasetSample,
    ExportedForm,
    ExportedModel,
    Plan,
    QuantizedBase,
    TokenizedDataset,
)
from tasks.exporting.adapter import Adapter, found_at
from tasks.exporting.card import write_card
from tasks.exporting.comparing import read_chunks, release_memory
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Ingredients
from tasks.exporting.forms import FORMS
from tasks.exporting.merging import check_fit, read_entries
from tasks.exporting.view import sections
from tasks.models.base_model import ModelReference, fetch
from tasks.models.files import PAPERS, copy_files
from tasks.models.libraries import import_bitsandbytes
from tasks.running.stage import Stage

log = logging.getLogger(__name__)


def run_exporting(
    config: ExportingConfig,
    *,
    model: ModelReference,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    checkpoint: Checkpoint,
    plan: Plan,
    base: QuantizedBase | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> ExportedModel:
    """Write each form into a folder of its name, and compare it.

    `base`: the model quantized as `config.quantization` says, if there is one to compare the adapter on.

    Raises:
        StageError: the adapter is damaged, does not fit the base or cannot be merged, or an export that is loaded
            again computes something else than the trained model.
    """
    import_bitsandbytes()  # PEFT would, which takes longer
    original = fetch(model, progress)
    adapter = Adapter.read(checkpoint.path / "adapter")
    check_fit(adapter, read_entries(original))
    ingredients = Ingredients(
        model=model,
        base=original,
        trained_on=base.path if base else original,
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        plan=plan,
        quantization=config.quantization,
        adapter=adapter,
    )
    forms = [form for form in FORMS if form is FORMS[0] or form.name in config.forms]
    for form in forms:
        folder = workdir / form.name
        form.write(ingredients, config, folder, progress)
        copy_files(original, folder, PAPERS)
        write_card(ingredients, form, folder)
    chunks = read_chunks(tokens.path / "held_out.parquet", config.positions)
    chunks = chunks or read_chunks(tokens.path / "train.parquet", config.positions)
    progress.begin("comparing with the trained model", len(forms), "exports")
    exported = []
    for form in forms:
        with _explaining_memory():
            comparison = form.check(ingredients, config, workdir / form.name, chunks)
            release_memory(plan)
        size = sum(path.stat().st_size for path in (workdir / form.name).rglob("*") if path.is_file())
        exported.append(ExportedForm(name=form.name, bytes=size, comparison=comparison))
        progress.advance()
    name, revision = found_at(model, original)
    return ExportedModel(path=workdir, base_model=name, base_revision=revision, forms=tuple(exported))


@contextmanager
def _explaining_memory() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"the GPU has too little memory to load the model and compare it ({str(error).splitlines()[0]})",
            field="exporting.forms",
            remedy="end other programs on the GPU, or set exporting.forms=[]: fp16 takes two bytes a parameter",
        ) from error


STAGE = Stage(name="exporting", version=7, run=run_exporting, produces=ExportedModel, sections=sections, leaves=True)
