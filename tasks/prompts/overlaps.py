"""Files and problems that stand in the training data too: asking for them would ask for what was learned by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from artifacts.errors import InputError
from artifacts.rows import count_rows
from artifacts.schema import DatasetSample, Overlap
from tasks.contamination import EvaluationText, documents, find
from tasks.functional import Problem, Suite
from tasks.prompts.files import HeldOutFiles


@dataclass(frozen=True)
class Screened:
    """What may be asked about, and what may not."""

    held_out: HeldOutFiles
    retention: HeldOutFiles
    suites: list[Suite]
    found: tuple[Overlap, ...]
    dropped: frozenset[tuple[str, ...]]
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


def screen(sample: DatasetSample, retention: DatasetSample | None, suites: Sequence[Suite], folder: Path) -> Screened:
    """Leave out the files and problems of which most stands in one training file.

    `folder`: for temporary files.

    Raises:
        InputError: no held-out file is left.
    """
    sides = [retention.path / f"{side}.parquet" for side in ("held_out", "train")] if retention else []
    held_out = HeldOutFiles((sample.path / "held_out.parquet",), folder)
    others = HeldOutFiles(tuple(sides), folder, "retention")
    if not all(map(count_rows, (*held_out.tables, *others.tables))):
        raise InputError(
            "no file is held out, so nothing can be evaluated",
            field="sampling",
            remedy="take files of more repositories, or hold out a larger share of them",
        )
    problems = [(suite.name, problem) for suite in suites for problem in suite.problems]
    texts = chain(({"file": file.asked} for file in chain(held_out, others)), (_parts(one) for _, one in problems))
    items = (EvaluationText(str(number), parts) for number, parts in enumerate(texts))
    found = {int(one.item): one for one in find(documents(sample.path / "train.parquet"), items, folder)}
    names = chain(
        ((files.domain, name) for files in (held_out, others) for name in files.names()),
        ((suite, (problem.task_id,)) for suite, problem in problems),
    )
    looked = {number: one for number, one in enumerate(names) if number in found}
    overlaps = [
        Overlap(
            domain=domain, item="/".join(name), part=one.part, kind=one.kind, document=one.document, share=one.share
        )
        for number, (domain, name) in looked.items()
        for one in (found[number],)
    ]
    own = held_out.total
    held_out, others = (
        replace(held_out, left_out=frozenset(number for number in found if number < own)),
        replace(others, left_out=frozenset(number - own for number in found if own <= number < own + others.total)),
    )
    if len(held_out.left_out) == own:
        raise InputError(
            "every held-out file stands in the training data, so nothing can be evaluated",
            field="sampling",
            remedy="sample more repositories, or leave out copies of the same code",
        )
    looked_at = Counter({"held_out": own, "retention": others.total})
    looked_at.update(suite for suite, _ in problems)
    return Screened(
        held_out,
        others,
        [suite.without({one.item for one in overlaps if one.domain == suite.name}) for suite in suites],
        tuple(overlaps),
        frozenset(name for number, (_, name) in looked.items() if number < own + others.total),
        dict(+looked_at),
    )


def _parts(problem: Problem) -> dict[str, str]:
    """What of a problem would give it away. A gap's prompt and solution are short: there the whole program counts."""
    if problem.suffix is not None:
        return {"program": problem.program(problem.canonical_solution)}
    return {"prompt": problem.prompt, "solution": problem.canonical_solution}
