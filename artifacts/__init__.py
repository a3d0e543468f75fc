"""Nouns: what the stages hand to each other, the store that keeps it, how it is shown.

This is a Python package, not an output folder: outputs go to the store (`CODETUNE_STORE`, default `./store`).
"""

from artifacts import surroundings

surroundings.leave_out()
