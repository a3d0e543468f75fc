"""Checkpoints of a training run: complete or absent.

A checkpoint is written into a staging folder by transformers, then sealed: every file is synced, a manifest with
their hashes is written last, and one rename puts it into place. A folder without manifest, or whose files are not
what the manifest says, is no checkpoint: the run steps back to the one before.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from artifacts import digest, durable
from artifacts.errors import InputError
from artifacts.reading import read_json

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
KEPT = 2


class Checkpoints:
    """The checkpoints of one run, in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.staging = root / ".staging"
        """Where transformers writes: it makes `checkpoint-<step>` in here."""

    def prepare(self) -> None:
        """Make the folder, without what a killed run left half-written."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def seal(self, step: int) -> Path:
        """Make what was staged for `step` a checkpoint, and drop all but the last ones."""
        staged, final = self.staging / f"checkpoint-{step}", self._root / f"step-{step:08d}"
        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        for path in files.values():
            durable.sync(path)
        manifest = {"step": step, "files": {name: digest.of_file(path) for name, path in files.items()}}
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=1))
        durable.sync(staged / MANIFEST)
        durable.sync(staged)
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
        durable.sync(self._root)
        for old in self._all()[KEPT:]:
            shutil.rmtree(old)
        return final

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole; damaged ones are removed, with a line in the log."""
        for folder in self._all():
            damage = _damage(folder)
            if damage is None:
                return folder
            log.warning("the checkpoint of step %d is not used: %s; stepping back", step_of(folder), damage)
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _all(self) -> list[Path]:
        """Newest first."""
        return sorted(self._root.glob("step-*"), reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps done when the checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def _damage(folder: Path) -> str | None:
    if not (folder / MANIFEST).exists():
        return f"{MANIFEST} is missing"
    try:
        manifest = read_json(folder / MANIFEST)
        for name, expected in manifest["files"].items():
            if digest.of_file(folder / name) != expected:
                return f"the contents of {name} were altered"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return None
