"""Held-out files on disk, as sampling leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from artifacts.rows import write_rows
from tasks.prompts.files import HeldOutFile, HeldOutFiles


def stored(folder: Path, files: Sequence[HeldOutFile]) -> HeldOutFiles:
    """Files of which all is asked for."""
    table = folder / "held_out.parquet"
    write_rows(map(asdict, files), table, dict.fromkeys(("repo", "path", "language", "content"), "string"))
    return HeldOutFiles((table,), folder)
