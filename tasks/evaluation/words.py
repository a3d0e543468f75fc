"""Figures of an evaluation in words."""

from __future__ import annotations

from artifacts.schema import Metric

_SUITES = {"line": "next line", "fim": "fill in a line", "block": "fill in a block"}


def suite_in_words(suite: str) -> str:
    return _SUITES.get(suite, suite)


def is_share(metric: Metric) -> bool:
    """Shares are shown in per cent."""
    return metric.better == "higher"


def figure(metric: Metric, value: float) -> str:
    return f"{value:.1%}" if is_share(metric) else f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"


def change(metric: Metric, value: float) -> str:
    """A difference with its sign; shares in percentage points."""
    sign = "+" if value else ""
    text = f"{100 * value:{sign}.1f} pp" if is_share(metric) else f"{value:{sign}.4f}"
    return text.replace("-", "−")


def interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "too few repositories"
    low, high = (change(metric, end) for end in (metric.low, metric.high))
    return f"{low.removesuffix(' pp')} to {high}"


def verdict(metric: Metric) -> str:
    """What the interval says to the question that was asked."""
    return "kept, and better" if metric.question == "kept" and metric.verdict == "learned" else metric.verdict


def margin(metric: Metric) -> str:
    if metric.margin is None:
        return "–"
    return f"{100 * metric.margin:.3g} pp" if is_share(metric) else f"{metric.margin:.3g}"
