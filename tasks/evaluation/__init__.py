"""Evaluation: what the tuned model does better or worse than its base, on code that neither was tuned on.

Scores what `tasks.generation` left, without a model: another margin, metric or number of draws scores again and
generates nothing.

    scoring     answers → a score per item; scores → differences with intervals, by `tasks.statistics`
    functional  verdicts on programs → problems solved, suite by suite
    samples     which completions are shown
    showing     the report's sections
"""

from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.scoring import NAMES
from tasks.evaluation.stage import SHIPPED, STAGE, run_evaluation

__all__ = ["NAMES", "SHIPPED", "STAGE", "EvaluationConfig", "run_evaluation"]
