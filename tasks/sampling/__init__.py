"""Sampling: which source files are learned from and which are held out.

Sources (`local`, `table`, `github-code`, `hub`) hand rows to a filter (language, licence, readable, quality); what
passes goes into a pool that drops exact duplicates and makes the seeded choice; the chosen files are split by
repository. The same contents, configuration and seed give the same bytes, whatever the order of files and shards and
however many workers read.
"""

from tasks.sampling.config import RetentionConfig, SamplingConfig
from tasks.sampling.foreseeing import foreseen, foresight
from tasks.sampling.stage import RETENTION, STAGE, run_sampling, source_fingerprint

__all__ = [
    "RETENTION",
    "STAGE",
    "RetentionConfig",
    "SamplingConfig",
    "foreseen",
    "foresight",
    "run_sampling",
    "source_fingerprint",
]
