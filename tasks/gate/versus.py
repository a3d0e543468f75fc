"""Two models on the same items, the one that is there and the one that may take its place."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from artifacts.intervals import Verdict, verdict
from artifacts.schema import Metric
from tasks.gate.config import GateConfig
from tasks.gate.results import Result
from tasks.statistics import paired_difference


def versus(
    old: Mapping[str, Result], new: Mapping[str, Result], metric: Metric, config: GateConfig
) -> tuple[Verdict, str]:
    """The verdict on old → new, and its figures in words. Held-out figures, which have no margin, get a share of what
    the old one gained over its base."""
    items = sorted(new)
    weights = [new[item].weight for item in items]
    found = paired_difference(
        [old[item].tuned for item in items],
        [new[item].tuned for item in items],
        [new[item].cluster for item in items],
        better=metric.better,
        weights=weights,
        seed=config.seed,
    )
    margin = metric.margin
    if margin is None:
        gained = [old[item].tuned - old[item].base for item in items]
        gain = sum(map(operator.mul, gained, weights)) / sum(weights) * (-1 if metric.better == "lower" else 1)
        margin = config.tolerance * max(0.0, gain)
    said = verdict(found.low, found.high, better=metric.better, margin=margin, bound=found.bound)
    low, high = (f"{end:+.4f}" if end is not None else "?" for end in (found.low, found.high))
    return said, f"{said}, {found.base:.4f} → {found.tuned:.4f}, 95 % interval [{low}, {high}], margin {margin:.4g}"


def by_metric(found: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """Results by metric and item."""
    table: dict[str, dict[str, Result]] = {}
    for result in found:
        table.setdefault(result.metric, {})[result.item] = result
    return table
