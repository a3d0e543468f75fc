"""Scores and metrics, from rows alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tasks.evaluation import EvaluationConfig, scoring
from tasks.evaluation.config import Margins

CONFIG = EvaluationConfig(resamples=2000)


@pytest.mark.parametrize(
    ("answer", "truth", "exact"),
    [
        ("    x = 1", "    x = 1", 1),
        ("    x = 1  ", "    x = 1\r", 1),
        ("  x = 1", "    x = 1", 0),
        ("", "    x = 1", 0),
    ],
)
def test_exact_match_forgives_only_white_space_at_the_end(answer: str, truth: str, exact: int) -> None:
    assert scoring.exact_match(answer, truth) == exact


def test_edit_similarity_is_one_minus_insertions_and_deletions_over_both_lengths() -> None:
    assert scoring.edit_similarity("  abcd", "abed") == pytest.approx(1 - 2 / 8)
    assert scoring.edit_similarity("return x", "    return x") == 1
    assert scoring.edit_similarity("", "return x") == 0


def completion(item: int, suite: str, base: str, tuned: str, **others: Any) -> dict[str, Any]:
    row = {"domain": "held_out", "suite": suite, "item": item, "repo": f"r{item}", "language": "Python"}
    return row | {"truth": "truth", "base": base, "again": base, "tuned": tuned} | others


def chunk(number: int, base: float, tuned: float, **others: Any) -> dict[str, Any]:
    row = {"domain": "held_out", "repo": f"r{number}", "language": "Python", "tokens": 10 + number}
    return row | {"base": base, "again": None, "tuned": tuned} | others


def by_name(losses: list[dict[str, Any]], completions: list[dict[str, Any]]) -> dict[str, scoring.Measure]:
    return {found.name: found for found in scoring.measures(losses, scoring.score(completions))}


def test_every_answer_gets_every_score_of_its_suite() -> None:
    scores = scoring.score([completion(0, "line", "truth", "wrong"), completion(1, "fim", "wrong", "truth")])
    assert [(row["item"], row["score"]) for row in scores] == [
        (0, "exact_match"),
        (0, "edit_similarity"),
        (1, "exact_match"),
    ]
    assert scores[0]["base"] == 1 and scores[0]["tuned"] == 0 and scores[2]["tuned"] == 1


def test_figures_exist_for_what_was_measured() -> None:
    found = by_name([], [completion(item, "line", "wrong", "truth") for item in range(12)])
    assert list(found) == ["line_exact_match", "line_edit_similarity"]
    exact, similarity = (measure.metric(CONFIG) for measure in found.values())
    assert (exact.base, exact.tuned, exact.verdict) == (0, 1, "improved")
    assert similarity.items == similarity.clusters == 12


def test_perplexity_follows_from_the_loss() -> None:
    losses = [chunk(n, 20.0 + n, 15.0 + n % 3) for n in range(9)]
    loss, perplexity = (measure.metric(CONFIG) for measure in by_name(losses, []).values())
    assert perplexity.base == pytest.approx(math.exp(loss.base))
    assert loss.verdict == perplexity.verdict == "improved" and loss.better == "lower"


@pytest.mark.parametrize(
    ("lost", "margin", "verdict"),
    [(0.1, 0.05, "non-inferior"), (1.0, 0.05, "regressed"), (1.0, 0.2, "non-inferior"), (-1.0, 0.0, "improved")],
)
def test_kept_means_that_the_whole_loss_lies_below_the_margin(lost: float, margin: float, verdict: str) -> None:
    """A tenth of `lost` nats per token are lost on every chunk, give or take a little."""
    losses = [chunk(n, 20.0, 20.0 + lost * (10 + n) / 10 + n % 3 / 100, domain="retention") for n in range(12)]
    config = CONFIG.model_copy(update={"margins": Margins(loss=margin)})
    metric = by_name(losses, [])["retention_loss"].metric(config)
    assert (metric.question, metric.margin, metric.verdict) == ("retention", margin, verdict)


def test_a_gain_is_specific_by_how_much_it_is_larger_than_elsewhere() -> None:
    """Half a nat a chunk is gained on held-out code, a tenth on the other, give or take a little."""
    own = [chunk(n, 20.0, 19.5 + n % 3 / 100) for n in range(12)]
    other = [chunk(n, 20.0, 19.9 + n % 3 / 100, domain="retention") for n in range(12)]
    lines = [completion(n, "line", "x", "truth", domain=["retention", "held_out"][n % 2]) for n in range(24)]
    metrics = [measure.metric(CONFIG) for measure in by_name([*own, *other], lines).values()]
    loss, exact, similarity = scoring.specific(metrics)
    assert [one.name for one in (loss, exact, similarity)] == [
        "specific_loss",
        "specific_line_exact_match",
        "specific_line_edit_similarity",
    ]
    tokens = sum(row["tokens"] for row in own)
    assert (loss.base, loss.tuned, loss.difference) == pytest.approx(
        [(sum(row["tuned"] - row["base"] for row in rows)) / tokens for rows in (other, own)] + [-0.4 * 12 / tokens]
    )
    assert (loss.question, loss.better, loss.margin, loss.verdict) == ("specific", "lower", None, "improved")
    assert (loss.items, loss.clusters, exact.difference, exact.verdict) == (24, 24, 0, "inconclusive")


@pytest.mark.parametrize(
    ("elsewhere", "repositories", "verdict"),
    [(19.5, 12, "inconclusive"), (19.0, 12, "regressed"), (20.5, 12, "improved"), (20.5, 5, "inconclusive")],
)
def test_a_gain_that_any_code_has_is_not_specific(elsewhere: float, repositories: int, verdict: str) -> None:
    own = [chunk(n, 20.0, 19.5 + n % 3 / 100) for n in range(12)]
    other = [
        chunk(n, 20.0, elsewhere + n % 3 / 100, domain="retention", repo=f"k{n % repositories}") for n in range(12)
    ]
    metrics = [measure.metric(CONFIG) for measure in by_name([*own, *other], []).values()]
    assert [one.verdict for one in scoring.specific(metrics)] == [verdict]


def test_without_code_from_elsewhere_nothing_is_asked() -> None:
    metrics = [measure.metric(CONFIG) for measure in by_name([chunk(n, 20.0, 19.5) for n in range(12)], []).values()]
    assert scoring.specific(metrics) == []


def test_noise_is_what_the_base_differs_from_itself_by() -> None:
    rows = [completion(item, "fim", "wrong", "truth", again="truth" if item < 3 else "wrong") for item in range(12)]
    rows[11]["again"] = None
    noise = by_name([], rows)["fim_exact_match"].noise()
    assert noise is not None and (noise.items, noise.changed) == (11, 3)
    assert noise.difference == pytest.approx(3 / 11)


def test_figures_by_language_and_repository() -> None:
    rows = [completion(n, "fim", "wrong", "truth" if n % 2 else "no", language=["Go", "C"][n % 2]) for n in range(6)]
    found = by_name([], rows)["fim_exact_match"].breakdowns()
    languages = {row.name: (row.items, row.base, row.tuned) for row in found if row.by == "language"}
    assert languages == {"Go": (3, 0.0, 0.0), "C": (3, 0.0, 1.0)}
    assert sum(row.by == "repository" for row in found) == 6


def test_what_a_form_costs_is_the_change_of_the_tuned_model_on_the_items_that_both_have() -> None:
    trained = scoring.measures([chunk(number, 30.0, 20.0) for number in range(8)], [])
    there = [
        chunk(number, 40.0, 20.0 + number, domain=domain) for domain in ("held_out", "retention") for number in range(9)
    ]
    shipped = scoring.measures(there, [])
    loss, perplexity = scoring.costs(shipped, trained, CONFIG)
    assert (loss.name, perplexity.name, loss.items) == ("loss", "perplexity", 8)  # the trained one has no other
    tokens = sum(10 + number for number in range(8))
    assert (loss.base, loss.tuned) == (pytest.approx(160 / tokens), pytest.approx((160 + sum(range(8))) / tokens))
    assert loss.low is not None and loss.low > 0 and loss.margin is None
    kept = scoring.measures([row for row in there if row["domain"] == "retention"], [])
    assert scoring.costs(shipped, kept, CONFIG)[0].margin == CONFIG.margins.loss
    assert scoring.costs(shipped, scoring.measures([chunk(99, 1.0, 1.0)], []), CONFIG) == []
