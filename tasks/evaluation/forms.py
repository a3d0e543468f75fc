"""The model as it was trained and the forms that are shipped, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from artifacts import naming
from artifacts.presentation import Section, Table
from artifacts.schema import EvaluationReport, Metric, Record
from tasks.evaluation.words import QUESTIONS, change, figure, interval

TRAINED = "trained"
_CAPTION = (
    "Base and tuned are of the same form in a column, in llama.cpp but for the first, and all were asked the same."
    " “difference”: tuned − base. “from trained”: the tuned model in the form − the tuned model as trained, that is"
    " what the form costs. “two changes”: elsewhere → on held-out code. In brackets the 95% interval of each."
)


class Measured(Record):
    """Figures of the model as it was trained, or of a form of it."""

    metrics: tuple[Metric, ...]
    """Base against tuned."""
    costs: tuple[Metric, ...]
    """The tuned model as it was trained (`base`) against the form (`tuned`)."""


def measured(trained: EvaluationReport, shipped: Mapping[str, EvaluationReport]) -> dict[str, Measured]:
    """The same as numbers, by what was measured: `trained`, and each form."""
    return {
        name: Measured(
            metrics=tuple(metric for metric in one.metrics if not naming.repeats(metric.name)),
            costs=tuple(metric for metric in one.costs if not naming.repeats(metric.name)),
        )
        for name, one in {TRAINED: trained, **shipped}.items()
    }


def side_by_side(trained: EvaluationReport, shipped: Mapping[str, EvaluationReport]) -> Section:
    """One table of every figure: base and tuned, their difference, and what each form costs."""
    found = measured(trained, shipped)
    metrics = [{metric.name: metric for metric in one.metrics} for one in found.values()]
    costs = [{metric.name: metric for metric in one.costs} for one in found.values()]
    rows = tuple(
        row
        for question in QUESTIONS
        for name, metric in metrics[0].items()
        if metric.question == question
        for row in _rows(metric, [one.get(name) for one in metrics], [one.get(name) for one in costs])
    )
    return Section("forms", "Trained and shipped, side by side", (Table(("", "", *found), rows, _CAPTION),))


def _rows(metric: Metric, found: list[Metric | None], costs: list[Metric | None]) -> Iterator[tuple[str, ...]]:
    """Of one figure. One of how specific the gain is compares changes, and so no two models."""
    sides = "two changes" if metric.question == "specific" else "base → tuned"
    yield metric.title, _whole(sides), *(_both(one) for one in found)
    yield "", "difference", *(_difference(one) for one in found)
    if any(costs):
        yield "", _whole("from trained"), *(_difference(one) for one in costs)


def _both(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return _whole(f"{figure(metric, metric.base)} → {figure(metric, metric.tuned)}") + f", {metric.verdict}"


def _difference(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    said = change(metric, metric.difference)
    if metric.low is None or metric.high is None:
        return f"{said}, {interval(metric)}"
    low, high = (change(metric, end).removesuffix(" pp") for end in (metric.low, metric.high))
    return _whole(f"{said} [{low}, {high}]")


def _whole(text: str) -> str:
    """In one line, however narrow the table."""
    return text.replace(" ", "\u00a0")
