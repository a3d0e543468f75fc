"""What there is to see of a preflight: the machine, the plan, what it should cost, and every check."""

from __future__ import annotations

from artifacts.escaping import quoted
from artifacts.presentation import Section, Table, Text, duration
from artifacts.schema import Plan, Prediction, PreflightReport

MARKS = {"ok": "✓ ok", "warning": "! warning", "refused": "✗ refused"}


def sections(handle: PreflightReport) -> list[Section]:
    """One section: what the job will run on and how."""
    plan = Table(("plan", ""), plan_rows(handle.plan))
    prediction = Table(("predicted", ""), prediction_rows(handle.prediction))
    rows = tuple((check.name, MARKS[check.verdict], check.finding, check.remedy) for check in handle.checks)
    columns = ("checked", "", "found", "what to do")
    shown = 4 if any(check.remedy for check in handle.checks) else 3
    checks = Table(columns[:shown], tuple(row[:shown] for row in rows))
    blocks = (Text(f"Machine: **{quoted(handle.machine)}**"), plan, prediction, checks)
    return [Section("plan", "Machine and plan", blocks)]


def plan_rows(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The plan in words."""
    cap = "all of it" if plan.gpu_memory_gib is None else f"at most {plan.gpu_memory_gib:g} GiB"
    checkpointing = "on" if plan.gradient_checkpointing else "off"
    if plan.gradient_checkpointing and plan.checkpointed_layers is not None:
        checkpointing = f"on for {_layers(plan.checkpointed_layers)}"
    rows: tuple[tuple[str, str], ...] = (
        ("device", {"cuda": "GPU", "cpu": "CPU"}[plan.device]),
        ("arithmetic", plan.precision_in_words),
        ("sequences at once × accumulated", plan.batch_in_words),
        ("gradient checkpointing", checkpointing),
        ("backend", plan.backend),
    )
    if plan.products == "int8":
        rows += (("products of frozen layers", "int8 tensor cores" if plan.device == "cuda" else "int8"),)
    if plan.resident_layers:
        kept = "weights kept transposed too" if plan.products == "int8" else "weights kept in 16 bits"
        rows += ((kept, _layers(plan.resident_layers)),)
    return (*rows, ("GPU memory", cap)) if plan.device == "cuda" else rows


def _time(prediction: Prediction) -> tuple[tuple[str, str], ...]:
    seconds, step = prediction.seconds, prediction.step_seconds
    if prediction.epochs is None:
        return (("time for all steps", duration(seconds) if seconds else "unknown for this GPU"),)
    epochs = "epochs by the amount of data" if prediction.epochs == "auto" else f"{prediction.epochs:g} epochs"
    counted = f"{epochs}, counted in steps once the text is tokenized"
    counted += f"; {prediction.steps:,} at most" if prediction.steps else ""
    return (("steps", counted), ("time for a step", f"{step:.2g} s" if step else "unknown for this GPU"))


def _layers(number: int) -> str:
    return f"{number} layer" if number == 1 else f"{number} layers"


def prediction_rows(prediction: Prediction) -> tuple[tuple[str, str], ...]:
    """What the plan should cost, in words."""
    needed, speed = prediction.needed_gib, prediction.tokens_per_second
    return (
        ("peak memory", f"{prediction.peak_gib:.1f} GiB"),
        *((("memory needed in all", f"{needed:.1f} GiB"),) if needed > prediction.peak_gib else ()),
        ("speed", f"{speed:,.0f} tokens/s" if speed else "unknown for this GPU"),
        *_time(prediction),
        ("disk", f"{prediction.disk_gib:.1f} GiB" if prediction.disk_gib >= 0.05 else "less than 0.1 GiB"),
    )
