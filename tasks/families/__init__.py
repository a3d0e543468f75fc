"""Families: what a model family is. One table (`table`); to add a family is to add an entry, and a test of it.

table   the entries: names of architectures, layers, fill-in-the-middle marks
marks   an entry's marks as ids of a vocabulary, and prompts with them
context other files of a repository in front of a gap
chat    the model's own chat template, cut at the question and at the answer
"""

from tasks.families.table import (
    BIASED,
    EMBEDDINGS,
    FAMILIES,
    HEAD,
    INTO_STREAM,
    LAYER_NORMS,
    LLAMA_LAYERS,
    OVERFLOWING,
    WINDOWS,
    Family,
    Marks,
    check_family,
)

__all__ = [
    "BIASED",
    "EMBEDDINGS",
    "FAMILIES",
    "HEAD",
    "INTO_STREAM",
    "LAYER_NORMS",
    "LLAMA_LAYERS",
    "OVERFLOWING",
    "WINDOWS",
    "Family",
    "Marks",
    "check_family",
]
