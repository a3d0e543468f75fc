"""Text becomes sequences of tokens: chunks of files in Parquet, in one of three formats."""

from tasks.tokenization.config import Format, TokenizationConfig, check_tokenization
from tasks.tokenization.stage import STAGE, run_tokenization

__all__ = ["STAGE", "Format", "TokenizationConfig", "check_tokenization", "run_tokenization"]
