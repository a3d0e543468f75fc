"""Text becomes sequences of tokens: chunks of files in Parquet, in one of three formats."""

from artifacts.schema import TokenizedDataset
from tasks.running.stage import Stage
from tasks.tokenization.config import Format, TokenizationConfig, check_tokenization
from tasks.tokenization.stage import run_tokenization
from tasks.tokenization.view import sections

STAGE = Stage(
    name="tokenization",
    version=2,
    run=run_tokenization,
    produces=TokenizedDataset,
    sections=sections,
    fans_out=True,
    needs_card=False,
)

__all__ = ["STAGE", "Format", "TokenizationConfig", "check_tokenization", "run_tokenization", "sections"]
