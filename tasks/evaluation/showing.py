"""What there is to see of an evaluation: the figures with their intervals, and answers side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from artifacts import figures
from artifacts.presentation import Block, Figure, Section, Table, Text
from artifacts.schema import Completion, EvaluationReport, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES_BEFORE, LINES_AFTER = 10, 4
"""Lines of text shown around a gap."""
COLOURS = {"better": figures.TUNED, "worse": figures.ACCENT, "no difference shown": figures.BASE}


def sections(handle: EvaluationReport) -> list[Section]:
    """The comparison, and some answers."""
    blocks: list[Block] = [_table(handle), _forest(handle.metrics)]
    if handle.notes:
        blocks.append(Text("\n".join(f"- {note}" for note in handle.notes)))
    found = [Section("comparison", "Base against tuned on held-out repositories", tuple(blocks))]
    if handle.samples:
        texts = tuple(Text(_sample(sample)) for sample in handle.samples)
        found.append(Section("completions", "Completions side by side", texts))
    return found


def _table(handle: EvaluationReport) -> Table:
    columns = ("", "base", "tuned", "difference", "95% interval", "items", "repositories", "tuned is")
    rows = tuple(_row(metric) for metric in handle.metrics)
    weights = {"int8": "int8", "nf4": "4-bit (nf4)", "none": "unquantized"}[handle.quantization]
    caption = (
        f"Same items, batches and {weights} base weights for both models. Differences are tuned − base; intervals from"
        " paired random halves of the repositories. Greedy answers; edit similarity is rapidfuzz's `ratio`."
    )
    if handle.generation:
        made = {"fused": "the engine", "stock": "the libraries' modules"}[handle.generation.engine]
        caption += f" Answers were made by {made} at {handle.generation.summary}."
    return Table(columns, rows, caption)


def _row(metric: Metric) -> tuple[str, ...]:
    base, tuned = (_figure(metric, value) for value in (metric.base, metric.tuned))
    change = _change(metric, metric.difference)
    return (
        metric.title,
        base,
        tuned,
        change,
        interval(metric),
        f"{metric.items:,}",
        f"{metric.clusters}",
        metric.verdict,
    )


def interval(metric: Metric) -> str:
    """The interval in words."""
    if metric.low is None or metric.high is None:
        return "too few repositories"
    low, high = (_change(metric, end) for end in (metric.low, metric.high))
    return f"{low.removesuffix(' pp')} to {high}"


def _is_share(metric: Metric) -> bool:
    return metric.better == "higher"


def _figure(metric: Metric, value: float) -> str:
    return f"{value:.1%}" if _is_share(metric) else f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"


def _change(metric: Metric, value: float) -> str:
    sign = "+" if value else ""
    text = f"{100 * value:{sign}.1f} pp" if _is_share(metric) else f"{value:{sign}.4f}"
    return text.replace("-", "−")


def _forest(metrics: tuple[Metric, ...]) -> Figure:
    """Differences with intervals; losses on one axis, shares on another."""
    losses = [metric for metric in metrics if metric.name == "loss"]
    shares = [metric for metric in metrics if _is_share(metric)]
    panels = [panel for panel in (losses, shares) if panel]
    with figures.drawing(7.2, 0.9 + 0.36 * sum(map(len, panels)) + 0.5 * len(panels)) as figure:
        ratios = [len(panel) + 0.6 for panel in panels]
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _draw_panel(axes, panel)
        svg = figures.to_svg(figure)
    alt = "; ".join(f"{metric.title}: {metric.verdict} ({interval(metric)})" for metric in [*losses, *shares])
    return Figure(svg, "svg", alt, "Difference of the tuned model from its base, with 95% intervals")


def _draw_panel(axes: Axes, metrics: list[Metric]) -> None:
    scale = 100 if _is_share(metrics[0]) else 1
    axes.axvline(0, color=figures.MUTED, linewidth=0.9)
    for row, metric in enumerate(metrics):
        colour = COLOURS[metric.verdict]
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low * scale, metric.high * scale], [row, row], color=colour, linewidth=2.2)
        axes.plot([metric.difference * scale], [row], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(metrics)), [metric.title.partition(",")[0] + _suffix(metric) for metric in metrics])
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("percentage points, right is better" if scale == 100 else "nats per token, left is better")


def _suffix(metric: Metric) -> str:
    return "" if metric.name == "loss" else "," + metric.title.partition(",")[2]


def _sample(sample: Completion) -> str:
    """One item as Markdown: the text around the gap, then truth and both answers, each on a line."""
    what = {"line": "Next line", "fim": "Fill in the line"}[sample.kind]
    before = sample.prompt.rstrip("\n").split("\n")[-LINES_BEFORE:]
    after = sample.suffix.split("\n")[:LINES_AFTER] if sample.suffix else []
    answers = (("truth", sample.truth), ("base ", sample.base), ("tuned", sample.tuned))
    lines = [f"{name} │ {answer.rstrip()}" for name, answer in answers]
    width = len("truth")
    context = [f"{'':{width}} │ {line}" for line in before], [f"{'':{width}} │ {line}" for line in after]
    body = "\n".join([*context[0], *lines, *context[1]])
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
    return f"**{what}** in `{sample.repo}`, `{sample.path}`\n\n{fence}text\n{body}\n{fence}"
