"""Scores of answers. Needs no model: what was generated lies in files, and can be scored again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from artifacts import naming
from artifacts.intervals import Better
from artifacts.schema import Breakdown, Metric, Noise, Question
from artifacts.units import HeldOutBy
from tasks.evaluation.config import EvaluationConfig, Margins
from tasks.evaluation.functional import PASS
from tasks.statistics import Difference, contrast, paired_difference

Row = Mapping[str, Any]
SIDES = ("base", "again", "tuned")

CHANGED_NATS = 1e-3
"""Loss per token that two runs of one model may differ by without counting as changed."""


def exact_match(answer: str, truth: str) -> float:
    """1 when the answer is the truth, white space at the end aside."""
    return float(answer.rstrip() == truth.rstrip())


def edit_similarity(answer: str, truth: str) -> float:
    """`rapidfuzz.fuzz.ratio` / 100: 1 − (insertions + deletions) / (both lengths).

    White space at both ends is left out: indentation is easy and would make every answer look alike.
    """
    from rapidfuzz import fuzz

    return float(fuzz.ratio(answer.strip(), truth.strip()) / 100)


SCORES: dict[str, dict[str, Callable[[str, str], float]]] = {
    "line": {"exact_match": exact_match, "edit_similarity": edit_similarity},
    "fim": {"exact_match": exact_match},
    "block": {"exact_match": exact_match},
    "context": {"exact_match": exact_match},
}
"""What is scored, by suite; the metric is called `<suite>_<score>`."""

_TITLES = {
    "loss": "loss, nats per token",
    "perplexity": "perplexity per token",
    "line_exact_match": "next line, exact match",
    "line_edit_similarity": "next line, edit similarity",
    "fim_exact_match": "fill in a line, exact match",
    "block_exact_match": "fill in a block, exact match",
    "context_exact_match": "fill in a line behind other files, exact match",
}
_OF_FILES = ("loss", "perplexity")
DOMAINS: dict[str, tuple[Question, str, str]] = {
    "held_out": ("improved", "", "Held-out"),
    "retention": ("retention", naming.RETENTION, "Retention"),
}
"""By domain: what is asked about it, what its metrics' names and titles begin with."""


_KINDS = (*_OF_FILES, *(f"{suite}_{name}" for suite, names in SCORES.items() for name in names))
NAMES = frozenset(
    {f"{prefix}{kind}" for _, prefix, _ in DOMAINS.values() for kind in _KINDS}
    | {naming.specific(kind) for kind in _KINDS if not naming.repeats(kind)}
)
"""Every metric but those of functional suites, which are called `<suite>_pass`."""


def score(completions: Iterable[Row]) -> list[dict[str, Any]]:
    """A row per answer and score: `domain, suite, item, repo, language, score, base, again, tuned`.

    Args:
        completions: rows with `domain, suite, item, repo, language, truth, base, again, tuned`; of suites that
            `SCORES` does not know, none.
    """
    return [
        {
            **{name: row[name] for name in ("domain", "suite", "item", "repo", "language")},
            "score": name,
            **{side: None if row[side] is None else function(row[side], row["truth"]) for side in SIDES},
        }
        for row in completions
        for name, function in SCORES.get(row["suite"], {}).items()
    ]


def measures(losses: Sequence[Row], scores: Sequence[Row], held_out_by: HeldOutBy = "repository") -> list[Measure]:
    """Everything that was measured, in the order of the report."""
    found = []
    for domain in DOMAINS:
        chunks = [row for row in losses if row["domain"] == domain]
        if chunks:
            weights = [float(row["tokens"]) for row in chunks]
            found += [Measure(name, domain, chunks, weights, held_out_by) for name in ("loss", "perplexity")]
        for suite, names in SCORES.items():
            for name in names:
                rows = [row for row in scores if (row["domain"], row["suite"], row["score"]) == (domain, suite, name)]
                if rows:
                    found.append(Measure(f"{suite}_{name}", domain, rows, [1.0] * len(rows), held_out_by))
    solved = [row for row in scores if row["score"] == PASS]
    for suite in dict.fromkeys(row["suite"] for row in solved):
        rows = [row for row in solved if row["suite"] == suite]
        found.append(Measure(naming.passing(suite), "retention", rows, [1.0] * len(rows), title=f"{suite}: pass@1"))
    return found


class Measure:
    """One figure with the rows that it is made of.

    Args:
        kind: the name without its domain.
        rows: with `repo` (what the bootstrap draws), `language`, and a sum for each side.
        weights: what the sums are divided by.
        held_out_by: what told what is held out: what `repo` names.
        title: of a functional suite; others have their own.
    """

    def __init__(
        self,
        kind: str,
        domain: str,
        rows: Sequence[Row],
        weights: Sequence[float],
        held_out_by: HeldOutBy = "repository",
        title: str | None = None,
    ) -> None:
        self.held_out_by: HeldOutBy = held_out_by if domain == "held_out" else "repository"
        self.kind, self.domain, self.rows, self.weights = kind, domain, rows, weights
        self.question, prefix, called = DOMAINS[domain]
        self.name = prefix + kind
        self.functional = title is not None
        self.title = title or f"{called}{' ' if kind in _OF_FILES else ': '}{_TITLES[kind]}"
        self.better: Better = "lower" if kind in _OF_FILES else "higher"

    def since(self, trained: Measure) -> Measure:
        """What became of the tuned model from `trained` to here, on the items that both have: the one is `base`, the
        other `tuned`."""
        before = {_item(row): row["tuned"] for row in trained.rows}
        both = [pair for pair in zip(self.rows, self.weights, strict=True) if _item(pair[0]) in before]
        return Measure(
            self.kind,
            self.domain,
            [{**row, "base": before[_item(row)]} for row, _ in both],
            [weight for _, weight in both],
            self.held_out_by,
            self.title if self.functional else None,
        )

    def metric(self, config: EvaluationConfig) -> Metric:
        """Both models' figures and the interval of their difference."""
        weighted = list(zip(self.rows, self.weights, strict=True))
        base, tuned = ([row[side] / weight for row, weight in weighted] for side in ("base", "tuned"))
        clusters = [row["repo"] for row in self.rows]
        found = paired_difference(
            base, tuned, clusters, better=self.better, weights=self.weights, seed=config.seed, draws=config.resamples
        )
        if self.kind == "perplexity":
            found = _perplexity(found)
        return Metric(
            name=self.name,
            title=self.title,
            question=self.question,
            better=self.better,
            base=found.base,
            tuned=found.tuned,
            difference=found.estimate,
            low=found.low,
            high=found.high,
            minimum_detectable_effect=found.minimum_detectable_effect,
            margin=self._margin(config.margins, found.base) if self.question == "retention" else None,
            items=found.items,
            clusters=found.clusters,
            bound=found.bound,
            held_out_by=self.held_out_by,
        )

    def noise(self) -> Noise | None:
        """The base model against itself; None where it was not run again."""
        pairs = [(row, weight) for row, weight in zip(self.rows, self.weights, strict=True) if row["again"] is not None]
        if not pairs or self.kind == "perplexity":
            return None
        total = sum(weight for _, weight in pairs)
        return Noise(
            name=self.name,
            title=self.title,
            items=len(pairs),
            changed=sum(abs(row["again"] - row["base"]) > CHANGED_NATS * weight for row, weight in pairs),
            difference=sum(row["again"] - row["base"] for row, _ in pairs) / total,
        )

    def breakdowns(self) -> list[Breakdown]:
        """By language and by repository, largest first; of a functional suite none."""
        if self.kind == "perplexity" or self.functional:
            return []
        found = []
        for by, column in (("language", "language"), ("repository", "repo")):
            groups: dict[str, list[int]] = {}
            for index, row in enumerate(self.rows):
                groups.setdefault(row[column], []).append(index)
            for name, indices in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
                total = sum(self.weights[index] for index in indices)
                base, tuned = (sum(self.rows[index][side] for index in indices) / total for side in ("base", "tuned"))
                found.append(Breakdown(metric=self.name, by=by, name=name, items=len(indices), base=base, tuned=tuned))
        return found

    def _margin(self, margins: Margins, base: float) -> float:
        """`base`: the base model's figure. The margin of perplexity says what that of the loss says."""
        if self.functional:
            return margins.functional
        if self.kind == "loss":
            return margins.loss
        if self.kind == "perplexity":
            return base * (_exp(margins.loss) - 1)
        return margins.similarity if self.kind.endswith("edit_similarity") else margins.exact_match


def costs(shipped: Sequence[Measure], trained: Sequence[Measure], config: EvaluationConfig) -> list[Metric]:
    """What each figure of the tuned model changes by from the model as it was trained (`base`) to a form of it
    (`tuned`), with the interval of the paired difference."""
    before = {one.name: one for one in trained}
    found = [one.since(before[one.name]) for one in shipped if one.name in before]
    return [one.metric(config) for one in found if one.rows]


def specific(metrics: Sequence[Metric]) -> list[Metric]:
    """How much more each figure changed on held-out code than on code from elsewhere, of those that both have. Ratios
    of perplexities would say what the losses say."""
    by_name = {metric.name: metric for metric in metrics}
    pairs = [
        (metric, by_name[naming.on_retention(metric.name)])
        for metric in metrics
        if naming.on_retention(metric.name) in by_name and not naming.repeats(metric.name)
    ]
    found = []
    for here, elsewhere in pairs:
        between = contrast(_difference(here), _difference(elsewhere))
        metric = Metric(
            name=naming.specific(here.name),
            title=f"Held-out against elsewhere: {_TITLES[here.name]}",
            question="specific",
            better=here.better,
            base=between.base,
            tuned=between.tuned,
            difference=between.estimate,
            low=between.low,
            high=between.high,
            minimum_detectable_effect=between.minimum_detectable_effect,
            items=between.items,
            clusters=between.clusters,
            held_out_by=here.held_out_by,
        )
        found.append(metric)
    return found


def _item(row: Row) -> tuple[Any, ...]:
    """What was asked, whoever answered."""
    return tuple(value for name, value in sorted(row.items()) if name not in SIDES)


def _difference(metric: Metric) -> Difference:
    return Difference(
        base=metric.base,
        tuned=metric.tuned,
        estimate=metric.difference,
        low=metric.low,
        high=metric.high,
        minimum_detectable_effect=metric.minimum_detectable_effect,
        items=metric.items,
        clusters=metric.clusters,
    )


def _perplexity(loss: Difference) -> Difference:
    """The base's perplexity as measured, and the interval that the loss's interval makes of it: both say the same."""
    base = _exp(loss.base)

    def change(difference: float | None) -> float | None:
        return None if difference is None else base * (_exp(difference) - 1)

    return Difference(
        base=base,
        tuned=_exp(loss.tuned),
        estimate=_exp(loss.tuned) - base,
        low=change(loss.low),
        high=change(loss.high),
        minimum_detectable_effect=change(loss.minimum_detectable_effect),
        items=loss.items,
        clusters=loss.clusters,
        bound=change(loss.bound),
    )


def _exp(loss: float) -> float:
    return math.exp(min(loss, 350.0))  # a broken model's perplexity must stay a number that JSON can hold
