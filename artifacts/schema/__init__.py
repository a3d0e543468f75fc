"""Handles: the small typed records that stages hand to each other. What they stand for lies in the store.

`DatasetSample → TokenizedDataset → Checkpoint → ExportedModel → Generations → EvaluationReport → RunReport`, with the
`PreflightReport`, its `Plan` and the `QuantizedBase` going into training, the `PromptSet` into the generations, and
`Executions` into the evaluation. Records
only: no tensors, no behaviour beyond small sums.

    base        what every record is
    data        what sampling and tokenization hand on
    plan        what preflight found, and the plan that training follows
    model       the model on its way: quantized, trained, exported
    prompts     what the models are asked
    generation  what the models made, and what became of their programs
    evaluation  how base and tuned compare, and the report on all of it
"""

from artifacts.schema.base import Handle, Place, Quantization, Record
from artifacts.schema.data import (
    REPLAY,
    DatasetSample,
    FunnelStep,
    Replay,
    RetentionSample,
    SplitSize,
    TokenizedDataset,
    TokenizedSplit,
)
from artifacts.schema.evaluation import (
    Breakdown,
    Completion,
    EvaluationReport,
    FunctionalResult,
    Metric,
    Noise,
    Question,
    RunReport,
    Share,
    has_learned,
)
from artifacts.schema.generation import Executions, FileAnswers, Generations, GenerationSpeed, Protection
from artifacts.schema.model import (
    Checkpoint,
    Comparison,
    ExportedForm,
    ExportedModel,
    QuantizedBase,
    ScaledLoss,
    ValidationResult,
    WeightGroup,
)
from artifacts.schema.plan import Check, Plan, Prediction, PreflightReport, Products
from artifacts.schema.prompts import Domain, FunctionalSuite, Overlap, PromptFile, PromptSet

__all__ = [
    "REPLAY",
    "Breakdown",
    "Check",
    "Checkpoint",
    "Comparison",
    "Completion",
    "DatasetSample",
    "Domain",
    "EvaluationReport",
    "Executions",
    "ExportedForm",
    "ExportedModel",
    "FileAnswers",
    "FunctionalResult",
    "FunctionalSuite",
    "FunnelStep",
    "GenerationSpeed",
    "Generations",
    "Handle",
    "Metric",
    "Noise",
    "Overlap",
    "Place",
    "Plan",
    "Prediction",
    "PreflightReport",
    "Products",
    "PromptFile",
    "PromptSet",
    "Protection",
    "Quantization",
    "QuantizedBase",
    "Question",
    "Record",
    "Replay",
    "RetentionSample",
    "RunReport",
    "ScaledLoss",
    "Share",
    "SplitSize",
    "TokenizedDataset",
    "TokenizedSplit",
    "ValidationResult",
    "WeightGroup",
    "has_learned",
]
