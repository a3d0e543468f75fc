"""Scores and metrics, from rows alone."""

from __future__ import annotations

import math

import pytest

from tasks.evaluation import scoring


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


def completion(item: int, suite: str, base: str, tuned: str) -> dict[str, object]:
    return {"suite": suite, "item": item, "repo": f"r{item}", "truth": "truth", "base": base, "tuned": tuned}


def test_every_answer_gets_every_score_of_its_suite() -> None:
    scores = scoring.score([completion(0, "line", "truth", "wrong"), completion(1, "fim", "wrong", "truth")])
    assert [(row["item"], row["score"]) for row in scores] == [
        (0, "exact_match"),
        (0, "edit_similarity"),
        (1, "exact_match"),
    ]
    assert scores[0]["base"] == 1 and scores[0]["tuned"] == 0 and scores[2]["tuned"] == 1


def test_metrics_exist_for_what_was_measured() -> None:
    scores = scoring.score([completion(item, "line", "wrong", "truth") for item in range(12)])
    exact, similarity = scoring.answer_metrics(scores, seed=0, resamples=2000)
    assert (exact.name, exact.base, exact.tuned, exact.verdict) == ("line_exact_match", 0, 1, "better")
    assert similarity.name == "line_edit_similarity" and similarity.items == similarity.clusters == 12


def test_perplexity_follows_from_the_loss() -> None:
    losses = [{"repo": f"r{n}", "tokens": 10 + n, "base_loss": 20.0 + n, "tuned_loss": 15.0 + n % 3} for n in range(9)]
    loss, perplexity = scoring.loss_metrics(losses, seed=0, resamples=2000)
    assert perplexity.base == pytest.approx(math.exp(loss.base))
    assert loss.verdict == perplexity.verdict == "better" and loss.better == "lower"


def test_figures_of_a_broken_model_still_are_numbers() -> None:
    losses = [{"repo": f"r{n}", "tokens": 1, "base_loss": 1.0, "tuned_loss": 1e6} for n in range(9)]
    perplexity = scoring.loss_metrics(losses, seed=0, resamples=2000)[1]
    assert math.isfinite(perplexity.tuned) and perplexity.verdict == "worse"
