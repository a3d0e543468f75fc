"""Figures of an evaluation in words."""

from __future__ import annotations

from artifacts.schema import FunctionalResult, Metric, Question, Share
from artifacts.units import UNITS

QUESTIONS: dict[Question, str] = {
    "improved": "Is it better on this code?",
    "specific": "Is the gain specific to this code?",
    "retention": "Did it keep what it could do?",
}

_SUITES = {
    "line": "next line",
    "fim": "fill in a line",
    "block": "fill in a block",
    "context": "fill in a line behind other files",
}


def suite_in_words(suite: str) -> str:
    return _SUITES.get(suite, suite)


def is_share(metric: Metric) -> bool:
    """Shares are shown in per cent."""
    return metric.better == "higher"


def figure(metric: Metric, value: float) -> str:
    """A model's figure; of a `specific_` metric a change, which is what it compares."""
    if metric.question == "specific":
        return change(metric, value)
    return f"{value:.1%}" if is_share(metric) else f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"


def change(metric: Metric, value: float) -> str:
    """A difference with its sign; shares in percentage points."""
    sign = "+" if value else ""
    text = f"{100 * value:{sign}.1f} pp" if is_share(metric) else f"{value:{sign}.4f}"
    return text.replace("-", "−")


def interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"too few {UNITS[metric.held_out_by].many}"
    low, high = (change(metric, end) for end in (metric.low, metric.high))
    return f"{low.removesuffix(' pp')} to {high}"


def verdict(metric: Metric) -> str:
    """What the interval says to the question that was asked."""
    few = metric.nothing_to_lose and metric.verdict == "inconclusive"
    return f"{metric.verdict}: too little to lose" if few else metric.verdict


def margin(metric: Metric) -> str:
    """The margin, and the bound that must lie within it."""
    if metric.margin is None:
        return "–"
    text = f"{100 * metric.margin:.3g} pp" if is_share(metric) else f"{metric.margin:.3g}"
    return text if metric.bound is None else f"{text}, bound {change(metric, metric.bound)}"


def share(found: Share, problems: int) -> str:
    """`3 of 164, 1.8% [0.6%, 5.2%]`, the interval Wilson's."""
    return f"{found.passed:,} of {problems:,}, {found.passed / problems:.1%} [{found.low:.1%}, {found.high:.1%}]"


def in_a_sentence(found: FunctionalResult, metric: Metric) -> str:
    """What a functional suite says: how many problems each model solved, and whether that was kept."""
    said = {
        "improved": "the tuned model solves more than its base",
        "non-inferior": "the tuned model kept what its base solves",
        "regressed": "the tuned model lost some of what its base solves",
        "inconclusive": "whether the tuned model kept what its base solves cannot be said",
    }[metric.verdict]
    if metric.nothing_to_lose and metric.verdict == "inconclusive":
        said += f": it solves too few for a loss of {margin(metric).partition(',')[0]} to be seen"
    return (
        f"{found.suite}: {said}. pass@1 of the base: {share(found.base, found.problems)}; of the tuned model: "
        f"{share(found.tuned, found.problems)}. Difference {change(metric, metric.difference)}, 95% interval"
        f" {interval(metric)}, margin {margin(metric)}; {found.gained:,} gained, {found.lost:,} lost, McNemar p ="
        f" {found.p:.2g}."
    )
