"""Contamination: evaluation items that stand in the training data, word for word or nearly, and documents that nearly
equal one another. Pure functions over texts.

overlap  training documents, items → the items of which most stands in one document, or these documents
similar  documents → which are worth comparing, and how similar two are
tables   the training side as documents, held-out files as items
"""

from tasks.contamination.overlap import (
    Contaminated,
    Documents,
    EvaluationText,
    TrainingText,
    documents_with,
    find,
    items_in,
    judged,
)
from tasks.contamination.similar import bands, shingles, similarity
from tasks.contamination.tables import documents, files

__all__ = [
    "Contaminated",
    "Documents",
    "EvaluationText",
    "TrainingText",
    "bands",
    "documents",
    "documents_with",
    "files",
    "find",
    "items_in",
    "judged",
    "shingles",
    "similarity",
]
