"""What stands in the pictures of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from artifacts import figures
from artifacts.schema import Metric
from tasks.evaluation import plots


def metric(name: str, title: str) -> Metric:
    retention = name.startswith("retention")
    return Metric(
        name=name,
        title=title,
        question="retention" if retention else "improved",
        better="lower" if name.endswith("loss") else "higher",
        margin=0.05 if retention else None,
        base=0.5,
        tuned=0.5,
        difference=0.0,
        low=-0.3,
        high=0.3,
        items=100,
        clusters=20,
    )


METRICS = [
    metric(f"{sample}{name}", f"{where}{title}")
    for sample, where in (("", "Held-out: "), ("retention_", "Retention: "))
    for name, title in (("loss", "loss"), ("line_exact_match", "next line"), ("fim_exact_match", "fill in a line"))
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures, as they are before they become SVG."""
    seen: list[Any] = []

    def keep(figure: Any) -> bytes:
        figure.draw_without_rendering()
        seen.append(figure)
        return b"<svg/>"

    monkeypatch.setattr(figures, "to_svg", keep)
    return seen


def test_a_margin_is_a_bracket_whose_open_side_is_towards_zero(drawn: list[Any]) -> None:
    plots.forest(METRICS)
    for axes, end in zip(drawn[0].axes, (0.05, -5.0), strict=True):
        brackets = [line for line in axes.lines if list(line.get_xdata()) == [end]]
        assert brackets and all(not isinstance(one.get_marker(), str) for one in brackets), (
            "text would show its dollars"
        )
        for one in brackets:
            xs = [x for x, _ in one.get_marker()]
            back = max(set(xs), key=xs.count)
            assert (sum(xs) / len(xs) - back) * end < 0


def test_a_legend_covers_nothing_that_is_drawn(drawn: list[Any]) -> None:
    plots.here_against_elsewhere(METRICS)
    axes = drawn[0].axes[-1]
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.get_window_extent())
    assert drawn[0].bbox.containsx(legend.x1) and drawn[0].bbox.containsy(legend.y1)
