"""Evaluation: what the tuned model does better or worse than its base, on repositories that neither was tuned on.

Base and tuned are one loaded model with the adapter switched off and on, so that quantization, kernels and batches are
the same. The parts, each usable without the others:

    suites      files → items: a gap in a file, the prompt that leads to it, what stands there in truth
    models      base and tuned, loaded once
    sides       what computes one of them: the libraries' modules, or the engine where the plan says so
    losses      chunks → token loss of both models                                   → losses.parquet
    generation  prompts → greedy answers by the libraries' modules                   → completions.parquet
    scoring     answers → a score per item (no model needed)                         → scores.parquet;
                scores → differences with intervals, by `tasks.statistics`
    showing     the report's sections
"""

from tasks.evaluation.settings import EvaluationConfig
from tasks.evaluation.stage import STAGE, run_evaluation

__all__ = ["STAGE", "EvaluationConfig", "run_evaluation"]
