"""What stands where in the report: every stage's own sections, and what only the whole run can show."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from artifacts.presentation import Section, Table, duration
from artifacts.schema import Handle
from artifacts.store import MANIFEST
from tasks.evaluation.forms import side_by_side
from tasks.reporting.comparison import SideBySide, compare
from tasks.reporting.inputs import RunResults


@dataclass(frozen=True)
class Chapter:
    """A part of the page with a heading and a place in its list of contents."""

    key: str
    title: str
    sections: tuple[Section, ...] = ()
    comparisons: tuple[SideBySide, ...] = field(default=())


def chapters(run: RunResults, shown: dict[str, list[Section]]) -> list[Chapter]:
    """The report's chapters in reading order. `shown`: by stage, what it shows of its result."""
    compared = tuple(map(compare, run.evaluation.samples))
    judged = tuple(one for one in shown["evaluation"] if one.key != "completions")
    proof = (*judged, *shown.get("execution", ()), *shown.get("gate", ()))
    aside = [replace(section, title=f"Code from elsewhere: {section.title}") for section in shown.get("retention", ())]
    # pictures and answers are those of the model as it was trained
    solved = [
        replace(one, key=f"{number}-{one.key}", title=f"{one.title}: {form}")
        for number, form in enumerate(run.shipped)
        for one in shown[f"shipped-evaluation {form}"]
        if one.key == "functional"
    ]
    shipped = [side_by_side(run.evaluation, run.shipped), *solved] if run.shipped else []
    return [
        Chapter("evaluation", "Base and tuned compared", proof),
        *([Chapter("shipped", "As trained, and as shipped", tuple(shipped))] if shipped else []),
        # laid out wider than elsewhere, with what differs marked
        *([Chapter("samples", "Sample completions", comparisons=compared)] if compared else []),
        Chapter(
            "data",
            "What went in",
            (*shown["sampling"], *shown["tokenization"], *aside, *shown["prompts"], *shown["generation"]),
        ),
        Chapter("plan", "The plan, and what it came to", (planned_and_measured(run), *shown["preflight"])),
        Chapter("training", "Training", tuple(shown["training"])),
        Chapter("model", "The model", tuple(shown["exporting"])),
        Chapter("provenance", "Where it all comes from", tuple(provenance(run))),
    ]


def planned_and_measured(run: RunResults) -> Section:
    """Preflight's predictions beside what training needed."""
    predicted, checkpoint = run.preflight.prediction, run.checkpoint
    seconds = checkpoint.steps * checkpoint.step_seconds
    expected = predicted.seconds or (predicted.step_seconds or 0) * checkpoint.steps
    rows = (
        _beside("peak memory, GiB", predicted.peak_gib, checkpoint.peak_memory_gib, "{:.2f}"),
        _beside("speed, tokens/s", predicted.tokens_per_second, checkpoint.tokens_per_second, "{:,.0f}"),
        _beside("time for all steps", expected, seconds, None),
    )
    caption = "Deviation: measured against predicted. Time and speed are those of the median step."
    if run.preflight.plan.device == "cpu":
        caption += " A CPU's speed is predicted from its number of cores, taken to be idle."
    if checkpoint.fallbacks:
        caption += " The predictions are for the first plan, which memory did not suffice for."
    return Section(
        "planned-measured",
        "Predicted and measured",
        (Table(("", "predicted", "measured", "deviation"), rows, caption),),
    )


def _beside(what: str, predicted: float | None, measured: float, form: str | None) -> tuple[str, ...]:
    show = form.format if form else duration
    if not predicted:
        return what, "unknown", show(measured), ""
    return what, show(predicted), show(measured), f"{measured / predicted - 1:+.0%}".replace("-", "−")


def provenance(run: RunResults) -> list[Section]:
    """Artifacts with their fingerprints, the libraries, and every setting that decided the result."""
    rows = tuple(
        (stage, _place(handle), f"`{handle.fingerprint[:12] or '–'}`") for stage, handle in run.by_stage.items()
    )
    artifacts = Section("artifacts", "Artifacts", (Table(("stage", "in the store at", "fingerprint"), rows),))
    found = [artifacts]
    if libraries := tuple(sorted(_json(run.preflight, "probe.json").get("libraries", {}).items())):
        found.append(Section("libraries", "Libraries", (Table(("library", "version"), libraries),)))
    if settings := tuple(row for stage, handle in run.by_stage.items() for row in _settings(stage, handle)):
        caption = "Those that decide the result; what only changes speed or place is left out."
        found.append(Section("settings", "Settings", (Table(("setting", "value"), settings, caption),)))
    return found


def _place(handle: Handle) -> str:
    """Where it lies in the store; the beginning of the key is enough to find it."""
    stage, _, key = handle.place.partition("/")
    return f"`{stage}/{key[:12]}…`" if key else "–"


def _settings(stage: str, handle: Handle) -> list[tuple[str, str]]:
    config = _json(handle, MANIFEST).get("provenance", {}).get("key_parts", {}).get("config", {})
    return [(f"{stage}.{name}", value) for name, value in _flat(config)]


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{inner}", text) for inner, text in _flat(value)]
        else:
            flat.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return flat


def _json(handle: Handle, name: str) -> dict[str, Any]:
    """A JSON file of an artifact; empty when the handle stands alone."""
    file = handle.path / name
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return values
