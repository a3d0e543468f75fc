"""The outcome in one sentence, and the figures that a person asks for first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from artifacts.schema import EvaluationReport, Metric
from tasks.reporting.inputs import RunResults

Tone = Literal["good", "bad", "neutral"]
TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "no difference shown": "neutral"}


@dataclass(frozen=True)
class KeyFigure:
    """One figure with what it means."""

    label: str
    value: str
    note: str
    tone: Tone = "neutral"


def verdict_of(evaluation: EvaluationReport) -> str:
    """Did the tuned model learn something? Judged by the loss on held-out repositories."""
    loss = evaluation.metric("loss")
    size = f"{abs(loss.difference):.3f} nats per token"
    low, high = loss.low, loss.high
    if low is None or high is None:
        return (
            f"Whether the tuned model learned cannot be said: its held-out loss is {size} "
            f"{_direction(loss)} the base model's, but {_repositories(loss)} cannot give an interval."
        )
    if loss.verdict == "no difference shown":
        return (
            f"No learning shown: the held-out loss changed by {loss.difference:+.3f} nats per token, "
            f"and the 95% interval [{low:+.3f}, {high:+.3f}] over {_repositories(loss)} includes zero."
        )
    ends = sorted((abs(low), abs(high)))
    learned = "The tuned model learned" if loss.verdict == "better" else "The tuned model got worse"
    return (
        f"{learned}: its loss on held-out code is {size} {_direction(loss)} the base model's "
        f"(95% interval {ends[0]:.3f} to {ends[1]:.3f}, {_repositories(loss)})."
    )


def tone_of(evaluation: EvaluationReport) -> Tone:
    return TONES[evaluation.metric("loss").verdict]


def _direction(metric: Metric) -> str:
    return "lower than" if metric.difference < 0 else "higher than"


def _repositories(metric: Metric) -> str:
    return "1 held-out repository" if metric.clusters == 1 else f"{metric.clusters:,} held-out repositories"


def key_figures(run: RunResults) -> list[KeyFigure]:
    """The cards at the head of the report."""
    wanted = ("loss", "line_edit_similarity", "fim_exact_match")  # exact next lines are rare: few prompts show nothing
    metrics = [metric for metric in run.evaluation.metrics if metric.name in wanted]
    checkpoint, predicted = run.checkpoint, run.preflight.prediction
    seconds = checkpoint.steps * checkpoint.step_seconds
    speed = predicted.tokens_per_second
    return [
        *map(_metric_figure, metrics),
        KeyFigure(
            "Training speed",
            f"{checkpoint.tokens_per_second:,.0f} tokens/s",
            _speed_note(run.preflight.plan.device, speed),
        ),
        KeyFigure(
            "Training time",
            duration(seconds),
            f"{checkpoint.steps:,} steps, {checkpoint.tokens:,} tokens",
        ),
        KeyFigure("Peak memory", f"{checkpoint.peak_memory_gib:.2f} GiB", f"{predicted.peak_gib:.2f} GiB predicted"),
    ]


def _speed_note(device: str, predicted: float | None) -> str:
    if not predicted:
        return "no prediction for this machine"
    return f"{predicted:,.0f} predicted" + (" for idle cores" if device == "cpu" else "")


def _metric_figure(metric: Metric) -> KeyFigure:
    titles = {
        "loss": "Held-out loss",
        "line_edit_similarity": "Next line, edit similarity",
        "fim_exact_match": "Filled-in line, exact match",
    }
    return KeyFigure(
        titles[metric.name],
        f"{show(metric, metric.base)} → {show(metric, metric.tuned)}",
        _metric_note(metric),
        TONES[metric.verdict],
    )


def _metric_note(metric: Metric) -> str:
    """The difference with its interval; a judgement where the figures do not move."""
    said = f"{change(metric)} {interval(metric)}"
    return said if metric.difference else metric.verdict


def is_share(metric: Metric) -> bool:
    """Shares are shown in per cent."""
    return metric.better == "higher"


def show(metric: Metric, value: float) -> str:
    return f"{value:.1%}" if is_share(metric) else f"{value:.3f}"


def change(metric: Metric) -> str:
    return _signed(metric, metric.difference) + (" pp" if is_share(metric) else "")


def interval(metric: Metric) -> str:
    """The 95% interval of the difference, in percentage points for shares."""
    if metric.low is None or metric.high is None:
        return "(no interval)"
    return f"[{_signed(metric, metric.low)}, {_signed(metric, metric.high)}]"


def _signed(metric: Metric, value: float) -> str:
    text = f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `7 min 5 s`, `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
