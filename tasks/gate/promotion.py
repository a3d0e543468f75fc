"""The decision against the present champion, on the same items, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from artifacts import digest, naming
from artifacts.escaping import quoted
from artifacts.presentation import Section, Text
from artifacts.registry import RESULTS, Registry, now
from artifacts.schema import ExportedModel, Metric, RunReport
from artifacts.verdicts import Candidate, Event, GateDecision, Ruling, Version
from tasks.gate import results
from tasks.gate.config import GateConfig
from tasks.gate.versus import by_metric, versus

log = logging.getLogger(__name__)


def candidate_of(exported: ExportedModel, decision: GateDecision, report: RunReport, recipe: str | None) -> Candidate:
    """The record of a run's model. The same model judged with the same result is the same candidate."""
    return Candidate(
        id=digest.of_json([exported.fingerprint, decision.fingerprint])[:12],
        model=exported.place,
        fingerprint=exported.fingerprint,
        recipe=recipe or "",
        decision=decision,
        report=report.place,
        recorded=now(),
    )


def settle(registry: Registry, candidate: Candidate, config: GateConfig, metrics: Sequence[Metric]) -> Event:
    """Record the candidate and, the first time, promote or hold it.

    Args:
        candidate: its decision is an opened artifact.
        metrics: of its evaluation.
    """
    registry.add(candidate, candidate.decision.path / RESULTS)

    def judge(champion: Version | None) -> tuple[Ruling, tuple[str, ...]]:
        reasons = candidate.decision.reasons
        if candidate.decision.ruling == "hold" or champion is None:
            return candidate.decision.ruling, reasons
        ruling, said = compare(registry, champion, candidate, config, metrics)
        return ruling, (*reasons, *said)

    event = registry.settle(candidate, judge)
    log.info("%s: %s", event.kind, " ".join(event.reasons))
    return event


def compare(
    registry: Registry, champion: Version, candidate: Candidate, config: GateConfig, metrics: Sequence[Metric]
) -> tuple[Ruling, tuple[str, ...]]:
    """Whether the candidate may replace the champion: whether each deciding figure is shown, on the same items, to be
    better, or not worse by the margin. Held-out figures, which have none, get a share of what the champion gained.
    Figures of how specific the gain is have no items of their own: the two that they are made of are compared."""
    deciding = {part for one in candidate.decision.judgements if one.decides for part in naming.compared(one.metric)}
    theirs = by_metric(results.read(registry.results(champion.candidate)))
    ours = by_metric(results.read(registry.results(candidate)))
    reasons = []
    ruling: Ruling = "promote"
    for metric in metrics:
        if metric.name not in deciding:
            continue
        old, new = theirs.get(metric.name, {}), ours[metric.name]
        if old.keys() != new.keys():
            return "hold", (
                f"It cannot be compared with the champion, {champion.name}: they were not measured on the same items "
                f"({metric.title}: {len(old.keys() & new.keys())} of {len(new)} in common). "
                "`codetune promote` decides by hand.",
            )
        said, finding = versus(old, new, metric, config)
        reasons.append(f"{metric.title}: {finding}.")
        if said not in ("improved", "non-inferior"):
            ruling = "hold"
    outcome = "not worse than" if ruling == "promote" else "not shown to be as good as"
    return ruling, (f"On the same items it is {outcome} the champion, {champion.name}.", *reasons)


def sections(event: Event) -> list[Section]:
    """For the dashboard: what became of the model."""
    reasons = "\n".join(f"- {quoted(reason)}" for reason in event.reasons)
    return [Section("outcome", "Promotion", (Text(f"**{in_words(event)}**\n\n{reasons}"),))]


def in_words(event: Event) -> str:
    """`promoted as v3`, `held`, `held (it is v3)`."""
    if event.kind == "hold":
        return "held" + (f" (it is v{event.version})" if event.version else "")
    return f"promoted as v{event.version}"
