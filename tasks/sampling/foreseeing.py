"""Whether there can be a verdict, said before anything is made: what is held out decides it."""

from __future__ import annotations

from pathlib import Path

from artifacts.escaping import quoted
from artifacts.presentation import Section, Text
from artifacts.schema import DatasetSample
from artifacts.units import FEWEST, UNITS
from tasks.sampling.config import LocalSource, SamplingConfig, TableSource
from tasks.sampling.stage import lacking, run_sampling

_SECONDS = 1 << 25
"""Bytes of source files that are sampled in seconds, some ten."""


def foreseen(config: SamplingConfig, workdir: Path) -> DatasetSample | None:
    """What a run would sample, without replay; None where that takes long, or is not on this machine.

    Raises:
        InputError: as `run_sampling`.
    """
    if isinstance(config.source, LocalSource):
        from tasks.sampling.local_source import Listing

        files = [item.found.path for item in Listing(config.source).items]
    elif isinstance(config.source, TableSource):
        files = [Path(path) for path in config.source.paths]
    else:
        return None
    if sum(file.stat().st_size for file in files if file.exists()) > _SECONDS:
        return None
    return run_sampling(config.model_copy(update={"replay": None}), workdir=workdir)


def foresight(sample: DatasetSample | None) -> Section:
    """What that means for the verdict."""
    if sample is None:
        words = "Sampling tells how much can be held out, and so whether there can be a verdict."
    elif too_little := lacking(sample):
        words = f"**There will be no verdict**: {quoted(too_little.problem)}.\n\nTo change that: {too_little.remedy}."
    else:
        unit = UNITS[sample.held_out_by]
        lines = f"{sample.added_lines:,} lines of " if sample.added_lines else ""
        words = (
            f"**There can be a verdict**: {lines}{unit.count(sample.units or 0)} are held out, and an interval needs"
        )
        words += f" {FEWEST}. {unit.proves}"
    return Section("verdict", "The verdict", (Text(words),))
