"""The stage: the trained model in every form that is asked for, each loaded again and compared before it counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
from tasks.exporting.forms import FORMS, with_needs
from tasks.exporting.merging import check_fit, read_entries
from tasks.exporting.scaling import choose_scale, scaled
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
        InputError: the adapter's weight is to be chosen, and training measured nothing to choose it by.
        StageError: the adapter is damaged, does not fit the base or cannot be merged, or an export that is loaded
            again computes something else than the trained model.
    """
    import_bitsandbytes()  # PEFT would, which takes longer
    original = fetch(model, progress)
    adapter = Adapter.read(checkpoint.path / "adapter")
    check_fit(adapter, read_entries(original))
    scale = choose_scale(config, checkpoint.validation)
    if scale != 1:
        log.info("the adapter's effect is multiplied by %g (exporting.adapter_scale)", scale)
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
        scale=scale,
    )
    with TemporaryDirectory(dir=workdir, prefix=".") as scratch:
        if scale != 1:
            multiplied = scaled(adapter, scale, Path(scratch) / "scaled")
            ingredients = ingredients.model_copy(update={"adapter": multiplied})
        exported = _export(ingredients, config, Path(scratch), workdir, progress)
    name, revision = found_at(model, original)
    return ExportedModel(path=workdir, base_model=name, base_revision=revision, forms=exported, adapter_scale=scale)


def _export(
    made: Ingredients, config: ExportingConfig, scratch: Path, workdir: Path, progress: Progress
) -> tuple[ExportedForm, ...]:
    """Write the forms that were asked for, those that they are made from into `scratch`, and compare the former."""
    wanted = (FORMS[0].name, *config.forms)
    for form in with_needs(wanted):
        folder = (workdir if form.name in wanted else scratch) / form.name
        form.write(made, config, folder, progress)
        made = made.model_copy(update={"folders": {**made.folders, form.name: folder}, "scratch": scratch})
        if form.name in wanted:
            copy_files(made.base, folder, PAPERS)
            write_card(made, form, folder)
    chunks = read_chunks(made.tokens.path / "held_out.parquet", config.positions)
    chunks = chunks or read_chunks(made.tokens.path / "train.parquet", config.positions)
    forms = [form for form in FORMS if form.name in wanted]
    progress.begin("comparing with the trained model", len(forms), "exports")
    exported = []
    for form in forms:
        with _explaining_memory():
            comparison = form.check(made, config, workdir / form.name, chunks)
            release_memory(made.plan)
        size = sum(path.stat().st_size for path in (workdir / form.name).rglob("*") if path.is_file())
        exported.append(ExportedForm(name=form.name, bytes=size, comparison=comparison))
        progress.advance()
    return tuple(exported)


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


STAGE = Stage(name="exporting", version=13, run=run_exporting, produces=ExportedModel, sections=sections, leaves=True)
