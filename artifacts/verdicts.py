"""Whether a model may take the champion's place: what the gate decides, and what became of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from artifacts.intervals import Verdict
from artifacts.schema import Handle, Place, Question, Record

Ruling = Literal["promote", "hold"]


class Judgement(Record):
    """What the gate made of one figure."""

    metric: str
    title: str
    question: Question
    """What the figure is asked about."""
    verdict: Verdict
    decides: bool
    """Whether a promotion rests on it. What does not decide can only object, by having regressed."""
    finding: str
    """The interval and the margin in words."""
    beside: str = ""
    """What else there is to know: the minimum detectable effect, Wilson's intervals, McNemar's test."""


class FormJudgement(Record):
    """What a form of the export costs."""

    form: str
    costs: tuple[Judgement, ...]
    """What became of the deciding figures from the model as it was trained to that form."""


class GateDecision(Handle):
    """`decision.json`: the decision; `settings.json`: what it was decided by; `results.parquet`: a row per metric and
    item, `metric, item` (a digest: the same item has the same in every run), `cluster, weight, base, tuned`, for
    comparing with other models later."""

    ruling: Ruling
    """What base against tuned says. The champion has a say after that."""
    reasons: tuple[str, ...]
    """In sentences."""
    judgements: tuple[Judgement, ...]
    shipped: tuple[FormJudgement, ...] = ()
    """Of the forms of the export that were measured, too."""

    @model_validator(mode="before")
    @classmethod
    def _of_one_form(cls, told: Any) -> Any:
        """Decisions in a registry that were made when one form could be measured."""
        if not isinstance(told, dict) or "form" not in told:
            return told
        form = {"form": told["form"], "costs": told.get("shipped", ())}
        return {name: value for name, value in told.items() if name != "form"} | {
            "shipped": [form] if told["form"] else []
        }

    @property
    def summary(self) -> str:
        return f"{self.ruling}: {' '.join(self.reasons)}"


class Candidate(Record):
    """A model that a run trained, exported and judged."""

    id: str
    """Names it: hex, from the fingerprints of the model and of what was decided."""
    model: Place
    """Where the store keeps the export: `exporting/<key>`."""
    fingerprint: str
    """Of the export. A model has one version, however often it is judged."""
    recipe: str
    decision: GateDecision
    report: Place | Literal[""]
    """Where the store keeps the report: `reporting/<key>`."""
    recorded: str
    """When, in UTC, ISO 8601."""


class Event(Record):
    """Something that happened to a candidate. The events, in order, are the whole state of the registry."""

    number: int
    at: str
    """UTC, ISO 8601."""
    kind: Literal["promote", "hold", "rollback"]
    candidate: str
    version: int | None
    """The candidate's version; None while it has none."""
    by: Literal["gate", "hand"]
    reasons: tuple[str, ...]


class Version(Record):
    """A candidate that was promoted."""

    number: int
    candidate: Candidate
    promoted: Event
    """The first promotion."""

    @property
    def name(self) -> str:
        return f"v{self.number}"
