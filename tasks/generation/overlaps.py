"""Files that stand in the training data too: asking for them would ask for what was learned by heart."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.errors import InputError
from artifacts.schema import DatasetSample, Domain, Overlap
from tasks.contamination import Item, documents, find
from tasks.generation.suites import SourceFile, read_files


@dataclass(frozen=True)
class Screened:
    """What may be asked about, and what may not."""

    held_out: list[SourceFile]
    kept: list[SourceFile]
    found: tuple[Overlap, ...]
    dropped: frozenset[tuple[str, str]]
    """Repository and path of held-out files that are left out."""
    looked_at: dict[str, int]


def screen(sample: DatasetSample, kept: DatasetSample | None) -> Screened:
    """Leave out the files of which most stands in one training file.

    Raises:
        InputError: no held-out file is left.
    """
    files = read_files(sample.path / "held_out.parquet")
    if kept:
        files += [file for side in ("held_out", "train") for file in read_files(kept.path / f"{side}.parquet", "kept")]
    items = [Item(str(number), {"file": file.content}) for number, file in enumerate(files)]
    found = {int(one.item): one for one in find(documents(sample.path / "train.parquet"), items)}
    overlaps = tuple(
        Overlap(
            domain=files[number].domain,
            item=f"{files[number].repo}/{files[number].path}",
            part=one.part,
            kind=one.kind,
            document=one.document,
            share=one.share,
        )
        for number, one in found.items()
    )
    left = [file for number, file in enumerate(files) if number not in found]
    held_out, others = (_of(left, domain) for domain in ("held_out", "kept"))
    if not held_out:
        raise InputError(
            "every held-out file stands in the training data, so nothing can be evaluated",
            field="sampling",
            remedy="sample more repositories, or leave out copies of the same code",
        )
    dropped = frozenset((files[number].repo, files[number].path) for number in found)
    counts = {domain: len(_of(files, domain)) for domain in ("held_out", "kept") if _of(files, domain)}
    return Screened(held_out, others, overlaps, dropped, counts)


def _of(files: list[SourceFile], domain: Domain) -> list[SourceFile]:
    return [file for file in files if file.domain == domain]
