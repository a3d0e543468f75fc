"""What there is to see of an evaluation: verdicts, figures with their intervals, and answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from artifacts import naming
from artifacts.escaping import code, quoted
from artifacts.presentation import Block, Code, Section, Table, Text
from artifacts.schema import Breakdown, Completion, EvaluationReport, Metric, Question
from artifacts.units import UNITS
from tasks.evaluation import plots
from tasks.evaluation.words import (
    QUESTIONS,
    change,
    figure,
    in_a_sentence,
    interval,
    margin,
    share,
    suite_in_words,
    verdict,
)

LINES_BEFORE, LINES_AFTER = 10, 4
"""Lines of text shown around a gap."""
LINES_OF_ANSWER = 24
MOST_REPOSITORIES = 12
"""Repositories listed by name."""


def sections(handle: EvaluationReport) -> list[Section]:
    """The questions, the noise, the breakdowns, and some answers."""
    found = [_question(handle, question) for question in QUESTIONS if _of(handle, question)]
    pictures: list[Block] = [plots.forest(handle.metrics)]
    if against := plots.here_against_elsewhere(handle.metrics):
        pictures.append(against)
    found.append(Section("differences", "Differences at a glance", tuple(pictures)))
    if handle.functional:
        found += _functional(handle)
    if handle.noise:
        found.append(_noise(handle))
    found += _breakdowns(handle)
    if handle.notes:
        notes = Text("\n".join(f"- {quoted(note)}" for note in handle.notes))
        found.append(Section("notes", "What was not measured", (notes,)))
    if handle.samples:
        blocks = tuple(block for sample in handle.samples for block in _sample(sample))
        found.append(Section("completions", "Completions side by side", blocks))
    return found


def _of(handle: EvaluationReport, question: Question) -> list[Metric]:
    return [metric for metric in handle.metrics if metric.question == question]


def _question(handle: EvaluationReport, question: Question) -> Section:
    retention = question == "retention"
    sides = ("change elsewhere", "change on held-out code") if question == "specific" else ("base", "tuned")
    columns = ("", "verdict", *sides, "difference", "95% interval", *(("margin",) if retention else ()))
    columns = (*columns, "minimum detectable effect", "items")
    rows = tuple(_row(metric, retention=retention) for metric in _of(handle, question))
    key = "held-out" if question == "improved" else question
    return Section(key, QUESTIONS[question], (Table(columns, rows, _caption(handle, question)),))


def _row(metric: Metric, *, retention: bool) -> tuple[str, ...]:
    return (
        metric.title,
        verdict(metric),
        figure(metric, metric.base),
        figure(metric, metric.tuned),
        change(metric, metric.difference),
        interval(metric),
        *((margin(metric),) if retention else ()),
        f"{change(metric, metric.minimum_detectable_effect)}" if metric.minimum_detectable_effect is not None else "–",
        f"{metric.items:,}\u00a0of\u00a0{metric.clusters:,}",
    )


def _caption(handle: EvaluationReport, question: Question) -> str:
    if question == "retention":
        return (
            "From outside what was trained on. `non-inferior`: the whole interval lies above minus the margin that was"
            " fixed before the run, and so does the bound, the most that may have been lost;"
            " `inconclusive`: it does not, or the base solves too little for a loss of the margin to be seen, and loss"
            " is not shown either. Minimum detectable effect: the difference that such a comparison shows in 80 of 100"
            " cases. Items: of how many repositories, or parent problems."
        )
    if question == "specific":
        return (
            "Tuned − base on held-out code against tuned − base on code from elsewhere: what all code gains says"
            " nothing of this code. `improved`: held-out code gained more, and the whole interval says so. It follows"
            " from the intervals of the two changes, taken as independent. Items: of both sides."
        )
    unit = UNITS[handle.held_out_by]
    weights = {"int8": "int8", "nf4": "4-bit (nf4)", "none": "unquantized"}[handle.quantization]
    what = f"{weights} base weights"
    if handle.form:
        what = f"type of file ({handle.form}, in llama.cpp)"
    caption = (
        f"Same items, batches and {what} for both models. Differences are tuned − base; intervals from"
        f" paired random halves of the {unit.many} (“items”: of how many). Greedy answers; edit similarity is"
        " rapidfuzz's `ratio`."
    )
    if handle.held_out_by != "repository":
        caption += f" {unit.proves}"
    if handle.generation:
        made = handle.generation
        caption += f" Answers were made by the backend {made.backend} at {made.summary}."
    return caption


def _functional(handle: EvaluationReport) -> list[Section]:
    """Suite by suite: both models' pass@1, and what became of their programs."""
    metrics = {metric.name: metric for metric in handle.metrics}
    found = [(one, metrics[naming.of_suite(one.suite)]) for one in handle.functional]
    sentences = Text("\n".join(f"- {quoted(in_a_sentence(one, metric))}" for one, metric in found))
    rows = tuple(
        (
            one.suite,
            verdict(metric),
            share(one.base, one.problems),
            share(one.tuned, one.problems),
            f"{one.gained:,} / {one.lost:,}",
            f"{one.p:.2g}",
        )
        for one, metric in found
    )
    columns = ("suite", "verdict", "base, pass@1", "tuned, pass@1", "gained / lost", "McNemar p")
    caption = (
        "One greedy answer to each problem, run against the suite's test. In brackets Wilson's 95% interval of each"
        f" model alone; the verdict is that of the paired difference above. Sandbox: {quoted(handle.protection)}."
    )
    why = tuple(
        (one.suite, reason, f"{one.base.reasons.get(reason, 0):,}", f"{one.tuned.reasons.get(reason, 0):,}")
        for one in handle.functional
        for reason in {**one.base.reasons, **one.tuned.reasons}
    )
    return [
        Section("functional", "Functional suites", (sentences, Table(columns, rows, caption))),
        Section("reasons", "What became of the programs", (Table(("suite", "why", "base", "tuned"), why),)),
    ]


def _noise(handle: EvaluationReport) -> Section:
    by_name = {metric.name: metric for metric in handle.metrics}
    rows = tuple(
        (noise.title, f"{noise.items:,}", f"{noise.changed:,}", change(by_name[noise.name], noise.difference))
        for noise in handle.noise
    )
    still = not any(noise.changed for noise in handle.noise)
    caption = "The base model was run a second time the same way. "
    caption += (
        "It gave the same answers: nothing of the differences above comes from the computation itself."
        if still
        else "What it changed by itself is the floor below which no difference means anything."
    )
    table = Table(("", "items", "changed", "difference"), rows, caption)
    return Section("noise", "Noise floor: base against base", (table,))


def _breakdowns(handle: EvaluationReport) -> list[Section]:
    """Every figure by language and by repository; of functional suites, whose problems are their repositories, none."""
    metrics = {metric.name: metric for metric in handle.metrics}
    found = []
    languages = [row for row in handle.breakdowns if row.by == "language"]
    if languages:
        found.append(Section("languages", "By language", (_languages(languages, metrics),)))
    by_repository = [row for row in handle.breakdowns if row.by == "repository" and not naming.is_pass(row.metric)]
    for question, key, title in (
        ("improved", "repositories", f"By {UNITS[handle.held_out_by].one}"),
        ("retention", "retention-repositories", "By repository, outside what was trained on"),
    ):
        if rows := [row for row in by_repository if metrics[row.metric].question == question]:
            found.append(Section(key, title, (_repositories(rows, metrics),)))
    return found


def _languages(rows: Sequence[Breakdown], metrics: Mapping[str, Metric]) -> Table:
    ordered = sorted(rows, key=lambda row: row.name)
    table = tuple(
        (row.name, metrics[row.metric].title, *_both(metrics[row.metric], row), f"{row.items:,}") for row in ordered
    )
    return Table(("language", "figure", "base", "tuned", "difference", "items"), table)


def _repositories(rows: Sequence[Breakdown], metrics: Mapping[str, Metric]) -> Table:
    """A repository a row with all its figures, base → tuned, and the difference of the first."""
    first, *others = dict.fromkeys(row.metric for row in rows)
    figures = {(row.name, row.metric): row for row in rows}
    shown, note = _ends(
        sorted((row for row in rows if row.metric == first), key=lambda row: (row.tuned - row.base, row.name))
    )
    table = tuple(
        (
            row.name,
            f"{row.items:,}",
            *_both(metrics[first], row),
            *(_arrow(metrics[name], figures.get((row.name, name))) for name in others),
        )
        for row in shown
    )
    called = (metrics[name].title.partition(": ")[2] for name in others)
    one = UNITS[metrics[first].held_out_by].one
    columns = (one, "chunks", "loss, base", "tuned", "difference", *called)
    return Table(columns, table, f"{note} “base → tuned”; “–” where nothing was asked.")


def _arrow(metric: Metric, row: Breakdown | None) -> str:
    return f"{figure(metric, row.base)} → {figure(metric, row.tuned)}" if row else "–"


def _ends(rows: Sequence[Breakdown]) -> tuple[Sequence[Breakdown], str]:
    """The first and the last, where there are too many."""
    if len(rows) <= MOST_REPOSITORIES:
        return rows, "Ordered by what was gained."
    half = MOST_REPOSITORIES // 2
    return [
        *rows[:half],
        *rows[-half:],
    ], f"The {half} that gained most and the {half} that gained least, of {len(rows)}."


def _both(metric: Metric, row: Breakdown) -> tuple[str, str, str]:
    return figure(metric, row.base), figure(metric, row.tuned), change(metric, row.tuned - row.base)


def _sample(sample: Completion) -> tuple[Block, Block]:
    """One item: where it is, then the text around the gap, truth and both answers."""
    before = sample.prompt.rstrip("\n").split("\n")[-LINES_BEFORE:]
    after = sample.suffix.split("\n")[:LINES_AFTER] if sample.suffix else []
    answers = (("truth", sample.truth), ("base", sample.base), ("tuned", sample.tuned))
    lines = [
        f"{name if not number else '':5} │ {line}"
        for name, answer in answers
        for number, line in enumerate(answer.rstrip().split("\n")[:LINES_OF_ANSWER])
    ]
    context = [f"{'':5} │ {line}" for line in before], [f"{'':5} │ {line}" for line in after]
    body = "\n".join([*context[0], *lines, *context[1]])
    what = suite_in_words(sample.kind).capitalize()
    where = f"**{quoted(what)}** in {code(sample.repo)}, {code(sample.path)} ({sample.chosen})"
    return Text(where), Code(body)
