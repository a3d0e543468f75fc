"""Contamination: evaluation items that stand in the training data, word for word or nearly. Pure functions over texts.

overlap  training documents, items → the items of which most stands in one document
tables   the training side as documents, held-out files as items
"""

from tasks.contamination.overlap import Contaminated, EvaluationText, TrainingText, find, judged
from tasks.contamination.tables import documents, files

__all__ = ["Contaminated", "EvaluationText", "TrainingText", "documents", "files", "find", "judged"]
