"""What a report is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from artifacts.schema import (
    Checkpoint,
    DatasetSample,
    EvaluationReport,
    Executions,
    ExportedModel,
    Generations,
    Handle,
    PreflightReport,
    PromptSet,
    RetentionSample,
    TokenizedDataset,
)
from artifacts.verdicts import GateDecision


@dataclass(frozen=True)
class RunResults:
    """The handles of all stages of one run."""

    preflight: PreflightReport
    sample: DatasetSample
    tokens: TokenizedDataset
    checkpoint: Checkpoint
    exported: ExportedModel
    prompts: PromptSet
    generations: Generations
    evaluation: EvaluationReport
    retention: RetentionSample | None = None
    decision: GateDecision | None = None
    executions: Executions | None = None
    shipped: Mapping[str, EvaluationReport] = field(default_factory=dict)
    """Of the forms that are shipped and were measured, by form."""

    @property
    def by_stage(self) -> dict[str, Handle]:
        """In the order of the pipeline."""
        found: dict[str, Handle | None] = {
            "preflight": self.preflight,
            "sampling": self.sample,
            "tokenization": self.tokens,
            "training": self.checkpoint,
            "exporting": self.exported,
            "retention": self.retention,
            "prompts": self.prompts,
            "generation": self.generations,
            "execution": self.executions,
            "evaluation": self.evaluation,
            **{f"shipped-evaluation {form}": one for form, one in self.shipped.items()},
            "gate": self.decision,
        }
        return {stage: handle for stage, handle in found.items() if handle}
