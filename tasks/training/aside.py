"""Which chunks are learned from, and which are set aside to see how training does.

What is set aside comes from the training side: held-out text is what evaluation judges, and whatever chooses a
checkpoint by it would choose the verdict. Whole repositories are set aside where there are enough of them, else whole
files; which ones, a hash of their names says, so that more data moves few of them from one side to the other.
General code (replay) is not set aside, and of it as much is learned from as keeps its share.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artifacts.errors import InputError
from artifacts.schema import REPLAY
from tasks.training.config import ValidationSettings

Rows = np.ndarray[Any, np.dtype[np.int64]]

REPOSITORIES = 20
"""So many, and whole ones are set aside."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows of `train.parquet`, in ascending order."""

    learned: Rows
    aside: Rows
    """Set aside."""
    unit: Literal["repositories", "files"] = "files"
    units: int = 0
    """How many of those are set aside."""


def set_aside(file: Path, settings: ValidationSettings | None, seed: int) -> TrainingRows:
    """Choose what is set aside, as `settings` say; nothing without.

    Raises:
        InputError: all text is of one file.
    """
    count = pq.read_metadata(file).num_rows
    everything, nothing = np.arange(count, dtype=np.int64), np.zeros(0, np.int64)
    if settings is None:
        return TrainingRows(everything, nothing)
    table = pq.read_table(file, columns=["repo", "path"])
    general = pc.sum(pc.starts_with(table["repo"], REPLAY)).as_py()
    table = table.slice(0, own := count - general)  # it comes last
    repositories = table["repo"].combine_chunks().dictionary_encode()
    by_repository = len(repositories.dictionary) >= REPOSITORIES
    files = pc.binary_join_element_wise(table["repo"], table["path"], "\n").combine_chunks().dictionary_encode()
    units = repositories if by_repository else files
    if len(files.dictionary) < 2:
        raise of_one_file()
    unit_of_row = units.indices.to_numpy()
    names, sizes = units.dictionary.to_pylist(), np.bincount(unit_of_row)
    order = sorted(range(len(names)), key=lambda one: hashlib.sha256(f"{seed}\n{names[one]}".encode()).digest())
    room = min(math.ceil(settings.share * own), settings.sequences)
    chosen = []
    for one in order:
        if sizes[one] <= room:
            chosen.append(one)
            room -= sizes[one]
    chosen = chosen or [min(order, key=lambda one: int(sizes[one]))]  # each is larger than what is wanted
    aside = np.isin(unit_of_row, chosen)
    kind: Literal["repositories", "files"] = "repositories" if by_repository else "files"
    learned = everything[:own][~aside]
    learned = np.append(learned, everything[own : own + round(general * len(learned) / own)])
    return TrainingRows(learned, everything[:own][aside], kind, len(chosen))


def of_one_file() -> InputError:
    """What is said where there is one file, and some of it should be set aside."""
    return InputError(
        "all training text is of one file, so nothing can be set aside for validation",
        field="training.validation",
        remedy="set training.validation=null, or name more files in sampling.source",
    )
