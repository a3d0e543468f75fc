"""How base and tuned compare, and the report on all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

from artifacts import naming
from artifacts.intervals import Better, Verdict, cannot_lose, improvement, verdict
from artifacts.schema.base import Handle, Quantization, Record
from artifacts.schema.generation import GenerationSpeed
from artifacts.schema.prompts import Domain
from artifacts.units import UNITS, HeldOutBy

Question = Literal["improved", "specific", "retention"]
"""What a figure is asked about: is the model better on this code, more so than on code from elsewhere, and did it keep
what it could do?"""


class Metric(Record):
    """One figure of base and tuned on the same items, with the interval of their paired difference."""

    name: str
    """`loss`, `perplexity`, `line_exact_match`, `line_edit_similarity`, `fim_exact_match`, `block_exact_match` on
    held-out code; the same after `retention_` on code from elsewhere; `retention_<suite>_pass` of a functional suite.
    After `specific_`, but for perplexity: how the change on held-out code differs from that on code from elsewhere.
    `base` is then the change elsewhere, `tuned` that on held-out code, and the difference tuned − base as always."""
    title: str
    """The figure in words, with its unit: `Held-out loss, nats per token`."""
    question: Question = "improved"
    """What the figure is asked about."""
    better: Better
    base: float
    tuned: float
    difference: float
    """tuned − base."""
    low: float | None
    """Lower end of the 95 % interval of the difference; None, as `high`, where there is no bound: a single repository
    says nothing about how repositories differ."""
    high: float | None
    minimum_detectable_effect: float | None = None
    """The true difference that would have been shown in 80 of 100 such comparisons; None where there is no interval."""
    margin: float | None = None
    """The loss of quality that is put up with, fixed before the run, in the figure's unit; None for none."""
    items: int
    clusters: int
    """Repositories, or what else is held out, or parent problems, that the interval's draws took or left out; of
    `specific_` figures, as `items`, those of both sides together."""
    bound: float | None = None
    """The most that may have been lost, beyond the interval's end on the side of worse; `non-inferior` is judged by it.
    """
    held_out_by: HeldOutBy = "repository"
    """What told what is held out, and so what the clusters are; of a `specific_` figure those on held-out code."""

    @property
    def drawn(self) -> str:
        """The clusters in words: `44 files`."""
        return UNITS[self.held_out_by].count(self.clusters)

    @property
    def interval(self) -> str:
        """The 95 % interval in brackets."""
        if self.low is None or self.high is None:
            return f"(too few {UNITS[self.held_out_by].many} for an interval)"
        return f"[{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def gain(self) -> tuple[float, float] | None:
        """The interval's ends, turned so that more is better; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return improvement(self.low, self.high, self.better)

    @property
    def verdict(self) -> Verdict:
        """What the interval says against the margin."""
        base = self.base if self.better == "higher" else None
        return verdict(self.low, self.high, better=self.better, margin=self.margin or 0.0, bound=self.bound, base=base)

    @property
    def nothing_to_lose(self) -> bool:
        """Whether the base has too few successes for a loss of the margin to be seen."""
        return self.better == "higher" and cannot_lose(self.base, self.margin or 0.0)


def has_learned(verdicts: Mapping[str, Verdict]) -> bool:
    """Whether it may be said that the model learned this code: its loss on held-out code improved, and by more than on
    code from elsewhere. `verdicts`: by metric."""
    return verdicts.get("loss") == verdicts.get("specific_loss") == "improved"


class Completion(Record):
    """One prompt with the truth and what both models made of it."""

    kind: str
    """The suite: `line`, `fim`, `block`, `context`, or a functional suite's name."""
    domain: Domain = "held_out"
    repo: str
    path: str
    prompt: str
    """The text before the gap (its end, where it is long)."""
    suffix: str
    """The text after the gap; empty for next-line completion."""
    truth: str
    base: str
    tuned: str
    chosen: Literal["best", "worst", "random"] = "random"
    """Why it is shown: what the tuned model won or lost most by, or the seed."""
    base_score: float | None = None
    """Edit similarity to the truth, or 1 for a program that passed."""
    tuned_score: float | None = None
    base_reason: str = ""
    """What became of the program, where it is one."""
    tuned_reason: str = ""


class Noise(Record):
    """Base against base: what two runs of the same model differ by."""

    name: str
    """The metric's."""
    title: str
    items: int
    changed: int
    """Items with another answer, or another loss by more than a thousandth of a nat per token."""
    difference: float
    """Of the metric, second run − first."""


class Breakdown(Record):
    """A figure for one language or one repository."""

    metric: str
    by: Literal["language", "repository"]
    name: str
    items: int
    base: float
    tuned: float


class Share(Record):
    """Problems that one model solved."""

    passed: int
    low: float
    """Lower end of Wilson's 95 % interval of the share; of the models alone, without pairing."""
    high: float
    reasons: dict[str, int]
    """Programs by what became of them: `passed`, `wrong answer`, `exception: NameError`; most frequent first."""


class FunctionalResult(Record):
    """One functional suite: how many problems each model solved. The metric: `retention_<suite>_pass`."""

    suite: str
    problems: int
    base: Share
    tuned: Share
    gained: int
    """Problems that only the tuned model solved."""
    lost: int
    """Problems that only the base solved."""
    p: float
    """McNemar's exact test of `gained` against `lost`."""


class EvaluationReport(Handle):
    """`scores.parquet`: a row per answer and score (`domain, suite, item, repo, language, score, base, again, tuned`),
    made from generations and executions alone; `metrics.json`: the figures with their margins; `costs.json`: what a
    form costs."""

    metrics: tuple[Metric, ...]
    noise: tuple[Noise, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not measured and why, in sentences."""
    samples: tuple[Completion, ...]
    """Completions to look at: the best, the worst, and some chosen by seed."""
    quantization: Quantization
    """What both models' base weights were quantized to."""
    form: str = ""
    """The form of the export as which both were measured, instead; empty for the model as it was trained."""
    costs: tuple[Metric, ...] = ()
    """Of such a form: each figure of the tuned model as it was trained (`base`) and as that form (`tuned`), on the same
    items."""
    generation: GenerationSpeed | None = None
    """None when nothing was generated."""
    functional: tuple[FunctionalResult, ...] = ()
    protection: str = ""
    """What held model-written programs in check, in words; empty when none was run."""
    held_out_by: HeldOutBy = "repository"
    """What told what is held out, and so what a gain on it proves."""

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def learned(self) -> bool:
        """Whether it may be said that the model learned this code."""
        return has_learned({one.name: one.verdict for one in self.metrics})

    def judged(self, question: Question) -> list[Metric]:
        """The figures that answer a question. Perplexity says what the loss says."""
        return [one for one in self.metrics if one.question == question and not naming.repeats(one.name)]

    @property
    def summary(self) -> str:
        loss = self.metric("loss")
        specific = "".join(f"; specific: {one.verdict}" for one in self.metrics if one.name == "specific_loss")
        retention = self.judged("retention")
        counts = Counter(one.verdict for one in retention)
        words = ", ".join(f"{counts[word]} {word}" for word in get_args(Verdict) if counts[word])
        judged = f"; elsewhere {words}" if retention else ""
        over = "" if self.held_out_by == "repository" else f" over {loss.drawn}"
        change = f"difference {loss.difference:+.4f} {loss.interval}{over}"
        costs = "".join(
            f"; from trained {one.difference:+.4f} {one.interval}" for one in self.costs if one.name == loss.name
        )
        return f"held-out loss {loss.base:.4f} → {loss.tuned:.4f}, {change}{specific}{judged}{costs}"


class RunReport(Handle):
    """`report.html`: one self-contained page about the whole run; `report.md`: the same for the dashboard;
    `figures.json`: the key figures at its head; `cards/adapter.md`, `cards/merged.md`: the export's model cards with
    the results."""

    verdict: str
    """The outcome in one sentence."""

    @property
    def summary(self) -> str:
        return self.verdict
