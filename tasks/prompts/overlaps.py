"""Files and problems that stand in the training data too: asking for them would ask for what was learned by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifacts.errors import InputError
from artifacts.schema import DatasetSample, Domain, Overlap
from tasks.contamination import EvaluationText, documents, find
from tasks.functional import Problem, Suite
from tasks.prompts.gaps import HeldOutFile, read_files


@dataclass(frozen=True)
class Screened:
    """What may be asked about, and what may not."""

    held_out: list[HeldOutFile]
    retention: list[HeldOutFile]
    suites: list[Suite]
    found: tuple[Overlap, ...]
    dropped: frozenset[tuple[str, str]]
    """Repository and path of held-out files that are left out."""
    looked_at: dict[str, int]

    @property
    def notes(self) -> list[str]:
        """Problems that are left out, suite by suite, in sentences."""
        counts = Counter(one.domain for one in self.found)
        return [
            f"{counts[suite.name]:,} of {self.looked_at[suite.name]:,} problems of {suite.name} stand in the training"
            " data and were not asked."
            for suite in self.suites
            if counts[suite.name]
        ]


@dataclass(frozen=True)
class _Looked:
    """Something that is looked for."""

    domain: str
    """`held_out`, `retention`, or a functional suite's name."""
    name: str
    parts: Mapping[str, str]


def screen(sample: DatasetSample, retention: DatasetSample | None, suites: Sequence[Suite] = ()) -> Screened:
    """Leave out the files and problems of which most stands in one training file.

    Raises:
        InputError: no held-out file is left.
    """
    files = read_files(sample.path / "held_out.parquet")
    if retention:
        files += [
            file
            for side in ("held_out", "train")
            for file in read_files(retention.path / f"{side}.parquet", "retention")
        ]
    looked = [_Looked(file.domain, f"{file.repo}/{file.path}", {"file": file.asked}) for file in files]
    looked += [_Looked(suite.name, one.task_id, _parts(one)) for suite in suites for one in suite.problems]
    items = [EvaluationText(str(number), one.parts) for number, one in enumerate(looked)]
    found = {int(one.item): one for one in find(documents(sample.path / "train.parquet"), items)}
    overlaps = tuple(
        Overlap(
            domain=looked[number].domain,
            item=looked[number].name,
            part=one.part,
            kind=one.kind,
            document=one.document,
            share=one.share,
        )
        for number, one in found.items()
    )
    left = [file for number, file in enumerate(files) if number not in found]
    held_out, others = (_of(left, domain) for domain in ("held_out", "retention"))
    if not held_out:
        raise InputError(
            "every held-out file stands in the training data, so nothing can be evaluated",
            field="sampling",
            remedy="sample more repositories, or leave out copies of the same code",
        )
    return Screened(
        held_out,
        others,
        [suite.without({one.item for one in overlaps if one.domain == suite.name}) for suite in suites],
        overlaps,
        frozenset((file.repo, file.path) for number, file in enumerate(files) if number in found),
        dict(Counter(one.domain for one in looked)),
    )


def _parts(problem: Problem) -> dict[str, str]:
    """What of a problem would give it away. A gap's prompt and solution are short: there the whole program counts."""
    if problem.suffix is not None:
        return {"program": problem.program(problem.canonical_solution)}
    return {"prompt": problem.prompt, "solution": problem.canonical_solution}


def _of(files: list[HeldOutFile], domain: Domain) -> list[HeldOutFile]:
    return [file for file in files if file.domain == domain]
