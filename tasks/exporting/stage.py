"""The stage: adapter and merged model, each loaded again and compared before it counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import StageError
from artifacts.progress import SILENT, Progress
from artifacts.schema import Checkpoint, Comparison, DatasetSample, ExportedModel, Plan, QuantizedBase, TokenizedDataset
from tasks.exporting.adapter import Adapter, write_adapter
from tasks.exporting.card import Ingredients, write_card
from tasks.exporting.comparing import compare_adapter, compare_merged, read_chunks, release_memory
from tasks.exporting.config import ExportingConfig
from tasks.exporting.merging import check_fit, merge, read_entries
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
    """Write `adapter/` and, if asked for, `merged/`.

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
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        plan=plan,
        quantization=config.quantization,
        adapter=adapter,
    )
    exported, merged = workdir / "adapter", workdir / "merged"
    write_adapter(adapter, model, original, exported)
    copy_files(original, exported, PAPERS)
    write_card(ingredients, "adapter", exported)
    if config.merged:
        merge(original, adapter, merged, round(config.max_shard_gb * 1e9), progress)
        write_card(ingredients, "merged", merged)
    models = _Models(original, base.path if base else original, adapter.folder)
    comparisons = _compare(config, models, tokens, plan, workdir, progress)
    return ExportedModel(
        path=workdir,
        adapter_comparison=comparisons[0],
        merged_comparison=comparisons[1],
        adapter_bytes=_size(exported),
        merged_bytes=_size(merged) if config.merged else 0,
    )


@dataclass(frozen=True)
class _Models:
    """Folders of what the exports are compared with."""

    original: Path
    """The base model as published."""
    trained_on: Path
    """The base model as it was trained on: quantized already, or to be quantized while it is read."""
    adapter: Path
    """The adapter as training left it."""


def _compare(
    config: ExportingConfig,
    models: _Models,
    tokens: TokenizedDataset,
    plan: Plan,
    workdir: Path,
    progress: Progress,
) -> tuple[Comparison, Comparison | None]:
    chunks = read_chunks(tokens.path / "held_out.parquet", config.positions)
    chunks = chunks or read_chunks(tokens.path / "train.parquet", config.positions)
    progress.begin("comparing with the trained model", 1 + config.merged, "exports")
    with _explaining_memory():
        exported = workdir / "adapter"
        bounded = config.quantization, config.adapter_bound
        of_adapter = compare_adapter(models.trained_on, models.adapter, exported, chunks, plan, *bounded)
        release_memory(plan)
        progress.update(1)
        if not config.merged:
            return of_adapter, None
        of_merged = compare_merged(models.original, exported, workdir / "merged", chunks, plan, config.merged_tolerance)
        progress.update(2)
    return of_adapter, of_merged


@contextmanager
def _explaining_memory() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"the GPU has too little memory to load the model and compare it ({str(error).splitlines()[0]})",
            field="exporting.merged",
            remedy="end other programs on the GPU, or set exporting.merged=false: fp16 takes two bytes a parameter",
        ) from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


STAGE = Stage(name="exporting", version=5, run=run_exporting, produces=ExportedModel, sections=sections, leaves=True)
