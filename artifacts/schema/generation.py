"""What the models made, and what became of their programs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from artifacts.schema.base import Handle, Place, Quantization, Record
from artifacts.schema.prompts import FunctionalSuite
from artifacts.units import HeldOutBy


class GenerationSpeed(Record):
    """How fast greedy answers were made: a reading, by wall time, start-up included."""

    backend: str
    """What computed them: the plan's, unless it could not."""
    tokens_per_second: float
    completions_per_second: float

    @property
    def summary(self) -> str:
        return f"{self.tokens_per_second:,.0f} tokens/s, {self.completions_per_second:,.1f} completions/s"


class FileAnswers(Handle):
    """What the models made of one file of a prompt set. `sides.parquet`: for each of its rows `base, again, tuned`: the
    summed loss in nats, or the answer."""

    backend: str
    """What computed them: the plan's, unless it could not."""
    tokens: int = 0
    """Of all answers of all sides."""
    completions: int = 0
    seconds: float = 0.0
    """That answering took, start-up included."""

    @property
    def summary(self) -> str:
        return f"{self.completions:,} answers"


class Generations(Handle):
    """What the models made, not scored yet. `losses.parquet`: a row per chunk: `domain, repo, path, language, chunk,
    tokens` and the summed loss in nats of each side, `base, again, tuned` (`again`: base a second time, null where not
    measured). `completions.parquet`: a row per prompt: `domain, suite, item, repo, path, language, line, prompt,
    suffix, truth` and each side's answer; of a functional suite's problem `path` is its name and `repo` that of the
    problem that it is a variant of. `problems/<suite>.jsonl`: functional suites as they were asked."""

    notes: tuple[str, ...] = ()
    """What was not measured and why, in sentences."""
    quantization: Quantization
    """What both models' base weights were quantized to."""
    form: str = ""
    """The form of the export as which both were measured, instead; empty for the model as it was trained."""
    losses: int
    """Chunks."""
    completions: int
    """Prompts."""
    functional: tuple[FunctionalSuite, ...] = ()
    speed: GenerationSpeed | None = None
    """None when nothing was generated."""
    parts: tuple[Place, ...] = ()
    """What it was put together from: a `FileAnswers` for each file of the prompts."""
    held_out_by: HeldOutBy = "repository"
    """What tells what is held out; `repo` names its units."""

    @property
    def made_of(self) -> tuple[str, ...]:
        return self.parts

    @property
    def summary(self) -> str:
        answers = f", {self.completions:,} answers of each at {self.speed.summary}" if self.speed else ""
        return f"base, base again and tuned: loss of {self.losses:,} chunks{answers}"


class Protection(Record):
    """What the sandbox achieves on this machine, as its probe found."""

    layers: dict[str, str] = Field(default_factory=dict)
    """Layers that hold (`landlock`, `seccomp`, `limits`, `user`, `namespaces`, `disk`), each with a word on how."""
    level: Literal["strong", "weak", "none"]
    """`strong`: every required layer holds and the probe's attempts were refused."""
    sufficient: bool
    """Above the floor: model-written code may run."""
    problem: str = ""
    """What is missing, in words."""

    @property
    def summary(self) -> str:
        held = "; ".join(f"{name}: {text}" for name, text in self.layers.items()) or "no layer holds"
        return f"{self.level} ({held})" + (f", {self.problem}" if self.problem else "")


class Executions(Handle):
    """What became of the programs that the models wrote. `verdicts.parquet`: a row per problem and side: `suite, item`
    (as in the generations), `task_id, side, passed, outcome, reason`; `runs.parquet`: a row per program that was run:
    `suite, task_id, completion, detail` (what the sandbox said), `seconds`."""

    measurements: ClassVar[tuple[str, ...]] = ("runs.parquet",)

    protection: Protection
    """What held them in check."""
    programs: int
    """Run; what several sides wrote alike, once."""
    problems: int
    """Of all suites."""
    passed: int
    """Problems that the tuned model solved."""
    stopped: int = 0
    """Programs among those run that passed after they had raised `StopIteration` into the test."""
    notes: tuple[str, ...] = ()
    """Problems that were left out, and passes that say little, in sentences."""

    @property
    def summary(self) -> str:
        return (
            f"{self.programs:,} programs in the sandbox ({self.protection.level}); "
            f"tuned solves {self.passed:,} of {self.problems:,} problems"
        )
