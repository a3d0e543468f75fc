"""Prompts: what both models will be asked, chosen and screened before a model is loaded. Needs no GPU.

Every suite is a file of its own with a fingerprint of its own, and so is what the loss is measured on: another suite
changes no other file, and the answers to those files stay as they are (`tasks.generation`).

    files       held-out files, read when they are asked for
    overlaps    what stands in the training data, and is not asked
    sequences   what the loss is measured on
    gaps        files → items: a gap in a file, the prompt that leads to it, what stands there in truth
    problems    functional suites → items
    stage       all of it, and the files that are left: `losses.parquet`, `suites/`, `problems/`
"""

from tasks.prompts.config import PromptsConfig
from tasks.prompts.problems import suites_fingerprint
from tasks.prompts.stage import STAGE, check_context, run_prompts

__all__ = ["STAGE", "PromptsConfig", "check_context", "run_prompts", "suites_fingerprint"]
