"""Which exported model a name means: the same for every command that takes one.

A name is a version (`v3`), `champion`, the beginning of an id or of a key, a recipe (the model of its newest run), or a
folder. What is both the name of a recipe and of a folder is the recipe; `./demo` is the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from artifacts import paths
from artifacts.errors import CodetuneError, InputError
from artifacts.lineage import LINEAGE
from artifacts.registry import Registry
from artifacts.schema import ExportedModel
from artifacts.store import Damaged, Manifest, Store, read_manifest, verified
from flows import recipes

if TYPE_CHECKING:
    from flows.config import PipelineConfig

REMEDY = "repeat the `codetune run` that made it, which builds it again"


def is_recipe(name: str) -> bool:
    """Whether a model is named by what made it."""
    return name in recipes.names() or (name.endswith((".yaml", ".yml")) and not _is_folder(Path(name)))


def known_as(name: str, store: Store, config: PipelineConfig | None = None) -> str:
    """What the registry calls a model: its place in the store where a folder or a recipe names it.

    Args:
        config: of the recipe, with what was changed in it: then the model that this makes comes first. None: the
            model of the recipe's newest run, whatever was changed in that.

    Raises:
        InputError: the folder is no export of this store, or the recipe has none in it.
    """
    if is_recipe(name):
        return _export_of(name, store, config)
    path = paths.expanded(name, "MODEL")
    if not _is_folder(path):
        return name
    place = store.place_of(path)
    if place is None or not place.startswith("exporting/"):
        raise InputError(
            f"{name} is no exported model of the store {store.place}",
            field="MODEL",
            remedy="name the folder that a run printed as `model`, and its store with --store",
        )
    return place


def place_of(name: str, store: Store, config: PipelineConfig | None = None) -> str:
    """Where the store keeps an export. See `known_as`.

    Raises:
        InputError: it is none of this store's.
    """
    known = known_as(name, store, config)
    return known if known.startswith("exporting/") else Registry(store.registry).find(known).model


def folder_of(name: str, store: Store, *, verify: bool = True) -> Path:
    """The folder of an export, wherever that is, also for a folder inside it; one of the store by name is verified.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = paths.expanded(name, "MODEL")
    if not is_recipe(name) and (_is_folder(path) or path.name == LINEAGE):
        around = paths.real(path).parent
        return around if _is_folder(around / "adapter") and not _is_folder(path / "adapter") else path
    place = place_of(name, store)
    try:
        return store.check(place) if verify else store.place / place
    except Damaged as damage:
        raise InputError(
            f"{place} cannot be used: {damage}",
            field="MODEL",
            remedy=REMEDY,
        ) from damage


def exported(name: str, store: Store) -> tuple[ExportedModel, Manifest]:
    """An export, wherever that is, and its manifest. Its files are not read yet: see `check_intact`.

    Raises:
        InputError: there is none, or it is no export any more.
    """
    folder = folder_of(name, store, verify=False)
    try:
        manifest = read_manifest(folder)
        if manifest.stage != "exporting":
            raise Damaged(f"it was made by {manifest.stage}")
        return ExportedModel.model_validate({**manifest.handle, "path": folder}), manifest
    except Damaged as damage:
        problem = f"{folder} is no exported model that can be used: "
        problem += str(damage) if folder.is_dir() else "it was removed from the store"
        raise InputError(problem, field="MODEL", remedy=REMEDY) from damage
    except ValidationError as error:
        raise InputError(
            f"{folder} was exported by another version of codetune", field="MODEL", remedy=REMEDY
        ) from error


def check_intact(export: ExportedModel, below: str = "") -> None:
    """Read an export's files, those whose names begin with `below`.

    Raises:
        InputError: one is missing or altered.
    """
    try:
        verified(export.path, below)
    except Damaged as damage:
        raise InputError(f"{export.path} cannot be used: {damage}", field="MODEL", remedy=REMEDY) from damage


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - unlike `Path.is_dir` it is False where nothing can be there


def _export_of(recipe: str, store: Store, changed: PipelineConfig | None) -> str:
    """Where the store keeps a recipe's export."""
    from flows.config import build

    newest = _newest_of(recipe, store)
    if newest and changed is None:
        return newest
    try:
        return _made_by(changed or build(recipe), store)
    except CodetuneError:  # the changes may be of how it is judged, and others have made it
        if newest is None:
            raise
        return newest


def _newest_of(recipe: str, store: Store) -> str | None:
    """The export of the newest run of a recipe that has one, and whose files are there."""
    there = {f"exporting/{manifest.key}" for manifest in store.manifests("exporting")}
    places = (
        place
        for run in store.ledger.runs()
        if run.recipe == recipe
        for place, stage in run.stages.items()
        if stage.state != "started" and place in there
    )
    return next(places, None)


def _made_by(config: PipelineConfig, store: Store) -> str:
    """The export that a configuration makes.

    Raises:
        InputError: the store has none.
    """
    from flows.finetune import pipeline
    from tasks.models.base_model import locate
    from tasks.running.dry_run import DryRun

    walk = DryRun(store)
    pipeline(walk, config, locate(config.model))
    step = walk.steps["exporting"]
    if step.job is None or not step.reused:
        raise InputError(
            f"there is no model of {config.recipe} in this store yet",
            field="MODEL",
            remedy=f"make one first: codetune run {config.recipe}",
        )
    return f"exporting/{step.job.key}"
