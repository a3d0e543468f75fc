"""What the models are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from artifacts.schema.base import Handle, Record
from artifacts.units import HeldOutBy

Domain = Literal["held_out", "retention"]
"""Where an item is from: the run's own held-out repositories, or code from outside what was trained on."""


class FunctionalSuite(Record):
    """A suite of problems with tests, as it was put to the models."""

    name: str
    fingerprint: str
    """Over the problems."""
    problems: int
    instructed: bool = False
    """Whether the problems were put as instructions, in the model's own template."""


class Overlap(Record):
    """Something to be asked that stands in the training data, word for word or nearly; it was left out."""

    domain: str
    """`held_out`, `retention`, or a functional suite's name."""
    item: str
    part: str
    kind: Literal["exact", "near"]
    document: str
    """The training file that holds the most of it."""
    share: float
    """Of the part's runs of five tokens, in that file."""


class PromptFile(Record):
    """One file of a prompt set: what is measured or asked by itself."""

    name: str
    """`losses`, or the suite's."""
    file: str
    """Its name in the artifact."""
    rows: int
    fingerprint: str
    """Over everything that decides the answers: the file and, of a functional suite, its problems."""


class PromptSet(Handle):
    """What both models are asked. `losses.parquet`: a row per chunk: `domain, repo, path, language, chunk, input_ids`
    and `counts` (for each token, whether predicting it from those before counts). `suites/<suite>.parquet`: a row per
    prompt: `domain, suite, repo, path, language, line` (of the gap, from 1), `prompt, suffix` (as far as the model sees
    them), `truth, prompt_ids, start` (bytes that the answer has to begin with and that are no part of it) and
    `new_tokens` (most of the answer). Of a functional suite's problem `path` is its name and `repo` that of the problem
    that it is a variant of. `problems/<suite>.jsonl`: functional suites as they are asked."""

    losses: PromptFile
    suites: tuple[PromptFile, ...]
    functional: tuple[FunctionalSuite, ...] = ()
    """Those of the suites whose answers are programs."""
    notes: tuple[str, ...] = ()
    """What is not measured and why, in sentences."""
    contaminated: tuple[Overlap, ...] = ()
    """What stands in the training data and is therefore not asked."""
    looked_at: dict[str, int] = Field(default_factory=dict)
    """Files or problems that were looked for there, by domain."""
    held_out_by: HeldOutBy = "repository"
    """What tells what is held out; `repo` names its units."""

    @property
    def summary(self) -> str:
        suites = ", ".join(f"{suite.name} {suite.rows:,}" for suite in self.suites) or "none"
        left_out = f"; {len(self.contaminated):,} left out: in the training data" if self.contaminated else ""
        return f"{self.losses.rows:,} chunks for the loss, prompts: {suites}{left_out}"
