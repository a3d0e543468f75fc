"""The outcome in words, question by question, and the figures that a person asks for first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from artifacts import naming
from artifacts.presentation import duration
from artifacts.schema import EvaluationReport, Metric
from artifacts.units import UNITS
from artifacts.verdicts import GateDecision
from tasks.evaluation.words import QUESTIONS, is_share
from tasks.reporting.inputs import RunResults

Tone = Literal["good", "bad", "neutral"]
TONES: dict[str, Tone] = {
    "improved": "good",
    "non-inferior": "good",
    "regressed": "bad",
    "inconclusive": "neutral",
}


@dataclass(frozen=True)
class Answer:
    """What the run says to one question."""

    question: str
    sentence: str
    tone: Tone


@dataclass(frozen=True)
class KeyFigure:
    """One figure with what it means."""

    label: str
    value: str
    note: str
    tone: Tone = "neutral"


def of_the_gate(decision: GateDecision) -> Answer:
    """What was decided, which the figures' answers below give the reasons for."""
    held = decision.ruling == "hold"
    regressed = any(one.verdict == "regressed" for one in decision.judgements)
    tone: Tone = "good" if not held else "bad" if regressed else "neutral"
    said = "Held" if held else "Passed"
    elsewhere = {unit.proves for unit in UNITS.values()}  # `better` says it
    reasons = " ".join(reason for reason in decision.reasons if reason not in elsewhere)
    return Answer("Does it pass the gate?", f"{said}: {reasons}", tone)


def answers_of(evaluation: EvaluationReport) -> list[Answer]:
    """Is it better on this code, by more than elsewhere, and did it keep what it could do?"""
    return [better(evaluation), specific(evaluation), retention(evaluation)]


def better(evaluation: EvaluationReport) -> Answer:
    """Judged by the loss on held-out code; with what that proves, where it is no repositories."""
    loss = evaluation.metric("loss")
    lost = [one for one in evaluation.judged("improved") if one.verdict == "regressed" and one is not loss]
    but = "; ".join(f"{one.title} {signed(one)} {interval(one)}" for one in lost)
    sentence = _better(loss, evaluation.learned) + (f" But it regressed elsewhere on this code: {but}." if but else "")
    if loss.gain and evaluation.held_out_by != "repository":
        sentence += f" {UNITS[evaluation.held_out_by].proves}"
    return Answer(QUESTIONS["improved"], sentence, "bad" if lost else TONES[loss.verdict])


def _better(loss: Metric, learned: bool) -> str:
    size = f"{abs(loss.difference):.3f} nats per token"
    low, high = loss.low, loss.high
    if low is None or high is None:
        return (
            f"Whether the tuned model is better cannot be said: its held-out loss is {size} "
            f"{_direction(loss)} the base model's, but {_repositories(loss)} cannot give an interval."
        )
    if loss.verdict == "inconclusive":
        return (
            f"No change shown: the held-out loss changed by {loss.difference:+.3f} nats per token, "
            f"and the 95% interval [{low:+.3f}, {high:+.3f}] over {_repositories(loss)} includes zero."
        )
    ends = sorted((abs(low), abs(high)))
    did = "learned this code" if learned else loss.verdict
    return (
        f"The tuned model {did}: its loss on held-out code is {size} {_direction(loss)} the base model's "
        f"(95% interval {ends[0]:.3f} to {ends[1]:.3f}, {_repositories(loss)})."
    )


def specific(evaluation: EvaluationReport) -> Answer:
    """Judged by how much more the loss fell on held-out code than on code from elsewhere."""
    question = QUESTIONS["specific"]
    found = next((one for one in evaluation.metrics if one.name == "specific_loss"), None)
    if not found:
        return Answer(
            question, "Whether the gain is specific was not asked: there was no code from elsewhere.", "neutral"
        )
    changes = (
        f"the loss changed by {_signed(found, found.tuned)} nats per token on held-out code and by"
        f" {_signed(found, found.base)} on code from elsewhere"
    )
    if not found.gain:
        return Answer(
            question,
            f"Whether it is cannot be said: {changes}, of too few {UNITS[found.held_out_by].many} for an interval.",
            "neutral",
        )
    between = f"a difference of {signed(found)} {interval(found)}"
    if found.verdict == "inconclusive":
        return Answer(question, f"A specific gain is not shown: {changes}, {between}, which includes zero.", "neutral")
    if found.verdict == "regressed":
        return Answer(question, f"The gain is not specific: {changes}, {between}.", "bad")
    if not evaluation.learned:
        return Answer(question, f"No gain is shown that could be: {changes}, {between}.", "neutral")
    return Answer(question, f"The gain is specific: {changes}, {between}.", "good")


def retention(evaluation: EvaluationReport) -> Answer:
    """Judged as the gate does unless told otherwise: by the loss outside the fine-tuned domain and functional suites.
    The other figures can only object, by being worse: of few prompts they say little."""
    judged = [
        one
        for one in evaluation.judged("retention")
        if one.name == naming.on_retention("loss") or naming.is_pass(one.name) or one.verdict == "regressed"
    ]
    question = QUESTIONS["retention"]
    if not judged:
        return Answer(question, "Not asked: there was neither a retention set nor a functional suite.", "neutral")
    by_verdict = {
        verdict: [one for one in judged if one.verdict == verdict]
        for verdict in ("improved", "non-inferior", "inconclusive", "regressed")
    }
    if by_verdict["regressed"]:
        lost = "; ".join(f"{_plain(one)} {signed(one)} {interval(one)}" for one in by_verdict["regressed"])
        return Answer(question, f"Something was lost outside the tuned code: {lost}.", "bad")
    if not by_verdict["inconclusive"]:
        within = "; ".join(
            f"{'its loss on code from elsewhere' if one.name == 'retention_loss' else _plain(one)} changed by "
            f"{signed(one)} {interval(one)}, margin {_margin(one)}"
            for one in judged
        )
        return Answer(question, f"The tuned model kept what it could do: {within}.", "good")
    parts = []
    for one in by_verdict["inconclusive"]:
        bound = "" if one.bound is None else f", bound {_signed(one, one.bound)}"
        why = f" (the base's {show(one, one.base)} leave too little to lose)" if one.nothing_to_lose else ""
        parts.append(f"{_plain(one)} {signed(one)} {interval(one)}{bound} against a margin of {_margin(one)}{why}")
    unclear = "; ".join(parts)
    surely = ", ".join(_plain(one) for one in [*by_verdict["improved"], *by_verdict["non-inferior"]])
    shown = f"{surely[0].upper()}{surely[1:]} held within the margin, but it" if surely else "It"
    return Answer(question, f"{shown} cannot be said of everything: {unclear}.", "neutral")


def _plain(metric: Metric) -> str:
    """A title within a sentence."""
    name = metric.title.removeprefix("Kept: ").removesuffix(", nats per token")
    return "loss" if name == "Retention loss" else name


def _margin(metric: Metric) -> str:
    margin = metric.margin or 0.0
    return f"{100 * margin:.3g} pp" if is_share(metric) else f"{margin:.3g} nats"


def tone_of(answers: list[Answer]) -> Tone:
    """The worst of them."""
    tones = [answer.tone for answer in answers]
    return "bad" if "bad" in tones else "neutral" if "neutral" in tones else "good"


def _direction(metric: Metric) -> str:
    return "lower than" if metric.difference < 0 else "higher than"


def _repositories(metric: Metric) -> str:
    unit = UNITS[metric.held_out_by]
    return f"{metric.clusters:,} held-out {unit.one if metric.clusters == 1 else unit.many}"


LABELS: dict[str, str] = {
    "loss": "Held-out loss",
    "retention_loss": "Loss elsewhere",
    "specific_loss": "Held-out against elsewhere",
    "line_edit_similarity": "Next line, edit similarity",
}
"""The metrics among the key figures, and those of functional suites. Exact lines are rare: few prompts show nothing."""


def compared(evaluation: EvaluationReport) -> list[KeyFigure]:
    """The key figures that compare base and tuned."""
    return [_metric_figure(one) for one in evaluation.metrics if one.name in LABELS or naming.is_pass(one.name)]


def key_figures(run: RunResults) -> list[KeyFigure]:
    """The cards at the head of the report."""
    checkpoint, predicted = run.checkpoint, run.preflight.prediction
    seconds = checkpoint.steps * checkpoint.step_seconds
    speed = predicted.tokens_per_second
    tokens = f"{checkpoint.tokens:,} tokens" + (f", {checkpoint.share_seen}" if checkpoint.share_seen else "")
    note = f"{speed:,.0f} predicted" if speed else "no prediction for this machine"
    if speed and run.preflight.plan.device == "cpu":
        note += " for idle cores"
    return [
        *compared(run.evaluation),
        *(_form_figure(run, form) for form in run.shipped),
        KeyFigure("Training speed", f"{checkpoint.tokens_per_second:,.0f} tokens/s", note),
        KeyFigure("Training time", duration(seconds), f"{checkpoint.steps:,} steps, {tokens}"),
        KeyFigure("Peak memory", f"{checkpoint.peak_memory_gib:.2f} GiB", f"{predicted.peak_gib:.2f} GiB predicted"),
    ]


def _form_figure(run: RunResults, form: str) -> KeyFigure:
    """Held-out loss of a form that is shipped, and what the form costs. Its tone is what the gate says of that."""
    shipped = run.shipped[form]
    loss, cost = shipped.metric("loss"), next(one for one in shipped.costs if one.name == "loss")
    judged = (
        {one.metric: one.verdict for of in run.decision.shipped if of.form == form for one in of.costs}
        if run.decision
        else {}
    )
    return KeyFigure(
        f"{LABELS['loss']}, {form}",
        f"{show(loss, loss.base)} → {show(loss, loss.tuned)}",
        f"{signed(cost)} {interval(cost)} from trained",
        TONES[judged["loss"]] if "loss" in judged else "neutral",
    )


def _metric_figure(metric: Metric) -> KeyFigure:
    label, tone = LABELS.get(metric.name, metric.title), TONES[metric.verdict]
    base, tuned = show(metric, metric.base), show(metric, metric.tuned)
    if metric.question == "specific":
        return KeyFigure(label, signed(metric), f"{interval(metric)}: {tuned} against {base}", tone)
    note = f"{signed(metric)} {interval(metric)}" if metric.difference else f"no change: {metric.verdict}"
    return KeyFigure(label, f"{base} → {tuned}", note, tone)


def show(metric: Metric, value: float) -> str:
    """A model's figure; of a `specific_` metric a change."""
    if metric.question == "specific":
        return _signed(metric, value)
    return f"{value:.1%}" if is_share(metric) else f"{value:.3f}"


def signed(metric: Metric) -> str:
    """The difference with its sign."""
    return _signed(metric, metric.difference) + (" pp" if is_share(metric) else "")


def interval(metric: Metric) -> str:
    """The 95% interval of the difference, in percentage points for shares."""
    if metric.low is None or metric.high is None:
        return "(no interval)"
    return f"[{_signed(metric, metric.low)}, {_signed(metric, metric.high)}]"


def _signed(metric: Metric, value: float) -> str:
    text = f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"
    return text.replace("-", "−")
