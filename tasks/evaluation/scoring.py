"""Scores of answers. Needs no model: what was generated lies in a file, and can be scored again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from artifacts.schema import Metric
from tasks.statistics import Difference, paired_difference

Row = Mapping[str, Any]


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
}
"""What is scored, by suite; the metric is called `<suite>_<score>`."""

TITLES = {
    "loss": "Held-out loss, nats per token",
    "perplexity": "Held-out perplexity per token",
    "line_exact_match": "Next line, exact match",
    "line_edit_similarity": "Next line, edit similarity",
    "fim_exact_match": "Fill in a line, exact match",
}


def score(completions: Iterable[Row]) -> list[dict[str, Any]]:
    """A row per answer and score: `suite, item, repo, score, base, tuned`.

    Args:
        completions: rows with `suite, item, repo, truth, base, tuned`.
    """
    return [
        {
            **{name: row[name] for name in ("suite", "item", "repo")},
            "score": name,
            **{side: function(row[side], row["truth"]) for side in ("base", "tuned")},
        }
        for row in completions
        for name, function in SCORES[row["suite"]].items()
    ]


def answer_metrics(scores: Sequence[Row], *, seed: int, resamples: int) -> list[Metric]:
    """A metric for each suite and score that has items."""
    metrics = []
    for suite, names in SCORES.items():
        for name in names:
            rows = [row for row in scores if (row["suite"], row["score"]) == (suite, name)]
            if rows:
                base, tuned, repos = ([row[column] for row in rows] for column in ("base", "tuned", "repo"))
                found = paired_difference(base, tuned, repos, seed=seed, draws=resamples)
                metrics.append(_metric(f"{suite}_{name}", found))
    return metrics


def loss_metrics(losses: Sequence[Row], *, seed: int, resamples: int) -> list[Metric]:
    """Loss and perplexity from rows of `losses.parquet`."""
    tokens = [row["tokens"] for row in losses]
    base, tuned = ([row[f"{side}_loss"] / row["tokens"] for row in losses] for side in ("base", "tuned"))
    repos = [row["repo"] for row in losses]
    loss = paired_difference(base, tuned, repos, weights=tokens, seed=seed, draws=resamples)
    return [_metric("loss", loss), _metric("perplexity", _perplexity(loss))]


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
        smallest_detectable=change(loss.smallest_detectable),
        items=loss.items,
        clusters=loss.clusters,
    )


def _exp(loss: float) -> float:
    return math.exp(min(loss, 350.0))  # a broken model's perplexity must stay a number that JSON can hold


def _metric(name: str, found: Difference) -> Metric:
    return Metric(
        name=name,
        title=TITLES[name],
        better="lower" if name in ("loss", "perplexity") else "higher",
        base=found.base,
        tuned=found.tuned,
        difference=found.estimate,
        low=found.low,
        high=found.high,
        smallest_detectable=found.smallest_detectable,
        items=found.items,
        clusters=found.clusters,
    )
