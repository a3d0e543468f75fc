"""Scores of answers. Needs no model: what was generated lies in a file, and can be scored again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from artifacts.schema import Metric
from tasks.evaluation.intervals import Paired, compare

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
                paired = _paired(rows, [1.0] * len(rows), "base", "tuned")
                metrics.append(_metric(f"{suite}_{name}", paired, seed=seed, resamples=resamples))
    return metrics


def loss_metrics(losses: Sequence[Row], *, seed: int, resamples: int) -> list[Metric]:
    """Loss and perplexity from rows of `losses.parquet`."""
    paired = _paired(losses, [row["tokens"] for row in losses], "base_loss", "tuned_loss")
    return [_metric(name, paired, seed=seed, resamples=resamples) for name in ("loss", "perplexity")]


def _paired(rows: Sequence[Row], weights: Sequence[float], base: str, tuned: str) -> Paired:
    repos = [row["repo"] for row in rows]
    return Paired(repos, weights, [row[base] for row in rows], [row[tuned] for row in rows])


def _metric(name: str, paired: Paired, *, seed: int, resamples: int) -> Metric:
    import numpy as np

    # a broken model's perplexity must stay a number that JSON can hold
    transform = (lambda ratios: np.exp(np.minimum(ratios, 700.0))) if name == "perplexity" else None
    found = compare(paired, seed=seed, resamples=resamples, transform=transform)
    return Metric(
        name=name,
        title=TITLES[name],
        better="lower" if name in ("loss", "perplexity") else "higher",
        base=found.base,
        tuned=found.tuned,
        difference=found.tuned - found.base,
        low=found.low,
        high=found.high,
        items=len(paired.clusters),
        clusters=found.clusters,
    )
