"""What every record is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Quantization = Literal["int8", "nf4", "none"]
Place = Annotated[str, StringConstraints(pattern=r"^[\w-][^/\x00]*/[\w-][^/\x00]*$")]
"""Of an artifact in the store, `<stage>/<key>`: a record of one leads nowhere else."""


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Handle(Record):
    """A published artifact, or one in the making while its stage runs (`place` and `fingerprint` still empty)."""

    measurements: ClassVar[tuple[str, ...]] = ()
    """Glob patterns of files that hold times and readings: kept and verified, but no part of the fingerprint."""

    place: str = ""
    """`<stage>/<key>`: where the store keeps it."""
    fingerprint: str = ""
    """Hex sha256 over the contents, measurements left out: equal contents have equal fingerprints."""
    path: Path = Field(default=Path(), exclude=True, repr=False)
    """The folder with the files on this machine, set by whoever opened the artifact; never stored."""

    @property
    def summary(self) -> str:
        """The result in a few words, for one line of a terminal."""
        raise NotImplementedError

    @property
    def made_of(self) -> tuple[str, ...]:
        """Places of artifacts that it was put together from: they are kept as long as it is."""
        return ()

    @property
    def known_by(self) -> frozenset[str]:
        """The fingerprints by which later stages know it: its own, and those of parts that are passed on alone."""
        return frozenset({self.fingerprint})
