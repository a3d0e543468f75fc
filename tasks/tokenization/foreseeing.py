"""How much there will be to learn from, said before all of it is tokenized."""

from __future__ import annotations

from math import ceil

from artifacts.rows import rows_at
from artifacts.schema import DatasetSample
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import encode_batch, load_tokenizer
from tasks.tokenization.config import TokenizationConfig

_TOKENIZED = 64
"""Files whose tokens are counted."""


def foreseen_sequences(config: TokenizationConfig, sample: DatasetSample, model: ModelReference) -> tuple[int, int]:
    """About how many sequences the sample's own code gives, and tokens: of some files they are counted, and the others
    are taken to have as many for their size, and a last sequence as full as the average."""
    data, own = sample.path / "train.parquet", sample.own.files  # general code comes after it
    some = range(0, own, ceil(own / _TOKENIZED))
    texts = [row["content"] for _, row in rows_at([data], some, ("content",))]
    found = encode_batch(load_tokenizer(model.metadata), texts)
    size = sum(len(text.encode()) for text, ids in zip(texts, found, strict=True) if ids)
    lengths = [len(ids) for ids in found if ids]
    tokens = sample.own.bytes * sum(lengths) / size if size else 0
    padding = sum(-length % config.max_length for length in lengths) * own / len(found)
    return round((tokens + padding) / config.max_length), round(tokens)
