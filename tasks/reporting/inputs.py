"""What a report is about."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.schema import (
    Checkpoint,
    DatasetSample,
    EvaluationReport,
    ExportedModel,
    Handle,
    PreflightReport,
    TokenizedDataset,
)


@dataclass(frozen=True)
class RunResults:
    """The handles of all stages of one run."""

    preflight: PreflightReport
    sample: DatasetSample
    tokens: TokenizedDataset
    checkpoint: Checkpoint
    exported: ExportedModel
    evaluation: EvaluationReport

    @property
    def by_stage(self) -> dict[str, Handle]:
        """In the order of the pipeline."""
        return {
            "preflight": self.preflight,
            "sampling": self.sample,
            "tokenization": self.tokens,
            "training": self.checkpoint,
            "exporting": self.exported,
            "evaluation": self.evaluation,
        }
