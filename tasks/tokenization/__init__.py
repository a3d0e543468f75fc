"""Text becomes sequences of tokens: chunks of files in Parquet, in one of three formats."""

from tasks.tokenization.config import Format, TokenizationConfig, check_tokenization
from tasks.tokenization.foreseeing import foreseen_sequences
from tasks.tokenization.stage import RETENTION, STAGE, run_tokenization

__all__ = [
    "RETENTION",
    "STAGE",
    "Format",
    "TokenizationConfig",
    "check_tokenization",
    "foreseen_sequences",
    "run_tokenization",
]
