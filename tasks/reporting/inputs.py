"""What a report is about."""

from __future__ import annotations

from dataclasses import dataclass

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
    shipped: EvaluationReport | None = None
    """Of the form that is shipped."""

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
            "shipped-evaluation": self.shipped,
            "gate": self.decision,
        }
        return {stage: handle for stage, handle in found.items() if handle}
