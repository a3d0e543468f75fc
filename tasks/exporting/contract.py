"""What an export form is. A form is a module in `forms`; no other file knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from artifacts.progress import Progress
from artifacts.schema import Checkpoint, Comparison, DatasetSample, Plan, Quantization, Record, TokenizedDataset
from tasks.exporting.adapter import Adapter, public_name
from tasks.models.base_model import ModelReference
from tasks.models.shape import ModelShape

if TYPE_CHECKING:
    from tasks.exporting.config import ExportingConfig

Chunks = Sequence[Sequence[int]]
"""Token ids of held-out texts, at which logits are compared."""


class Ingredients(Record):
    """What exports are made of."""

    model: ModelReference
    base: Path
    """The folder of the base model as published."""
    trained_on: Path
    """The base model as it was trained on: quantized already, or to be quantized while it is read."""
    sample: DatasetSample
    tokens: TokenizedDataset
    checkpoint: Checkpoint
    plan: Plan
    quantization: Quantization
    adapter: Adapter
    """As it was trained, its effect multiplied by `scale`."""
    scale: float = 1.0
    folders: dict[str, Path] = Field(default_factory=dict)
    """Of the forms that are there already, by name; those that others are made from are kept until the stage ends."""
    scratch: Path = Path()
    """A folder that goes when the stage ends."""

    @property
    def base_name(self) -> str:
        """How others find the base model."""
        return public_name(self.model)[0]

    @property
    def base_revision(self) -> str | None:
        """On the hub: a commit."""
        return public_name(self.model)[1]


class Export(Protocol):
    """One form in which the trained model is handed over."""

    name: str
    """Of the form, and of its folder in the export."""
    title: str
    """In tables."""
    heading: str
    """Of the model card, after the base model's name."""
    library: str
    """What loads it, as the hub calls it."""
    needs: tuple[str, ...]
    """Forms that it is made from. They are made as well, and kept only where they were asked for."""

    def check_ready(self) -> None:
        """Whether what makes it is installed.

        Raises:
            InputError: it is not.
        """

    def check_model(self, model: ModelReference) -> None:
        """Whether it can be made of this base model, as far as its metadata tell.

        Raises:
            InputError: it cannot.
        """

    def stored_bytes(self, shape: ModelShape) -> float:
        """What it takes on the disk."""

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        """Write its files, but for the model card.

        Raises:
            StageError: it cannot be made of this adapter and base.
        """

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        """Load it as its users will, and compare what it computes with what the trained model computes.

        Raises:
            StageError: it computes something else.
        """

    def introduction(self, made: Ingredients) -> str:
        """What it is, and what it was compared with, for the model card; quoted already."""

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        """Python that loads it from its folder."""

    def serving_lines(self, made: Ingredients, folder: str) -> str:
        """Lines of a shell that serve it from its folder."""
