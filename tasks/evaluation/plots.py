"""Pictures of an evaluation: every difference with its interval, and what changed here against elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from artifacts import figures, naming
from artifacts.escaping import visible
from artifacts.presentation import Figure
from artifacts.schema import Metric
from tasks.evaluation.words import interval, is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BRACKET: dict[str, Any] = {"markersize": 10, "fillstyle": "none", "linestyle": ""}
COLOURS = {
    "improved": figures.TUNED,
    "non-inferior": figures.TUNED,
    "regressed": figures.ACCENT,
    "inconclusive": figures.BASE,
}


def forest(metrics: Sequence[Metric]) -> Figure:
    """Differences with intervals; losses on one axis, shares on another. Perplexity says what the loss says."""
    losses = [metric for metric in metrics if not is_share(metric) and not naming.repeats(metric.name)]
    shares = [metric for metric in metrics if is_share(metric)]
    panels = [panel for panel in (losses, shares) if panel]
    with figures.drawing(7.2, 0.7 + 0.33 * sum(map(len, panels)) + 0.5 * len(panels)) as figure:
        ratios = [len(panel) + 0.6 for panel in panels]
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _panel(axes, panel)
        svg = figures.to_svg(figure)
    alt = "; ".join(f"{metric.title}: {metric.verdict} ({interval(metric)})" for metric in [*losses, *shares])
    caption = "Difference of the tuned model from its base, with 95% intervals; a bracket marks the margin."
    return Figure(svg, "svg", alt, caption)


def _panel(axes: Axes, metrics: Sequence[Metric]) -> None:
    scale = 100 if is_share(metrics[0]) else 1
    axes.axvline(0, color=figures.MUTED, linewidth=0.9)
    for row, metric in enumerate(metrics):
        colour = COLOURS[metric.verdict]
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low * scale, metric.high * scale], [row, row], color=colour, linewidth=2.2)
        axes.plot([metric.difference * scale], [row], "o", color=colour, markersize=6)
        if metric.margin is not None:
            side = 1 if metric.better == "lower" else -1
            bracket = [(-side, 2), (0, 2), (0, -2), (-side, -2)]  # outlines: text in `$` is no formula here
            axes.plot([metric.margin * scale * side], [row], marker=bracket, color=figures.MUTED, **_BRACKET)
    axes.set_yticks(range(len(metrics)), [visible(metric.title.removesuffix(", nats per token")) for metric in metrics])
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("percentage points, right is better" if scale == 100 else "nats per token, left is better")


def here_against_elsewhere(metrics: Sequence[Metric]) -> Figure | None:
    """What was gained on held-out code over what was gained or lost elsewhere; None without a retention set."""
    by_name = {metric.name: metric for metric in metrics}
    pairs = [
        (metric, by_name[naming.on_retention(metric.name)])
        for metric in metrics
        if naming.on_retention(metric.name) in by_name and not naming.repeats(metric.name)
    ]
    panels = [[pair for pair in pairs if is_share(pair[0]) is share] for share in (False, True)]
    panels = [panel for panel in panels if panel]
    if not panels:
        return None
    with figures.drawing(7.2, 3.9) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, panel in zip(grid[0], panels, strict=True):
            _against(axes, panel)
        svg = figures.to_svg(figure)
    alt = "; ".join(f"{here.title}: {here.verdict}, elsewhere {retention.verdict}" for here, retention in pairs)
    caption = (
        "Up: better on held-out code. Above the dotted line: better there by more than elsewhere. Left of the dashed"
        " line: more was lost elsewhere than the margin allows."
    )
    return Figure(svg, "svg", alt, caption)


def _against(axes: Axes, pairs: Sequence[tuple[Metric, Metric]]) -> None:
    share = is_share(pairs[0][0])
    scale = 100.0 if share else 1.0
    axes.axhline(0, color=figures.MUTED, linewidth=0.9)
    axes.axvline(0, color=figures.MUTED, linewidth=0.9)
    axes.axline((0, 0), slope=1, color=figures.MUTED, linewidth=0.9, linestyle=":")
    for (here, retention), colour in zip(pairs, figures.CYCLE, strict=False):
        x, y = _gain(retention) * scale, _gain(here) * scale
        if retention.gain:
            axes.plot([end * scale for end in retention.gain], [y, y], color=colour, linewidth=1.6)
        if here.gain:
            axes.plot([x, x], [end * scale for end in here.gain], color=colour, linewidth=1.6)
        label = visible(here.title.partition(": ")[2]) or "loss"
        axes.plot([x], [y], "o", color=colour, markersize=6, label=label)
        if retention.margin is not None and len(pairs) == 1:
            axes.axvline(-retention.margin * scale, color=figures.ACCENT, linewidth=1.0, linestyle="--")
    if share and (margins := {retention.margin for _, retention in pairs if retention.margin is not None}):
        axes.axvline(-max(margins) * scale, color=figures.ACCENT, linewidth=1.0, linestyle="--")
    unit = "pp" if share else "nats per token"
    axes.set_xlabel(f"gain elsewhere, {unit}")
    axes.set_ylabel(f"gain on held-out code, {unit}")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))  # above: lines cross all of the axes


def _gain(metric: Metric) -> float:
    return -metric.difference if metric.better == "lower" else metric.difference
