"""What programs other than transformers 5 need beside the weights: they read it wrong without, and say nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.rows import by_parts
from artifacts.schema import DatasetSample
from tasks.families.marks import FimTokens
from tasks.models import sentencepiece_model
from tasks.models.files import GENERATION, read_json, write_json
from tasks.models.vocabulary import CodeTokenizer

log = logging.getLogger(__name__)


def with_older_rope(config: dict[str, Any]) -> dict[str, Any]:
    """`config.json` with rotary settings also as transformers 4 has them, where it has those of transformers 5 only.
    transformers 4 and Ollama's converter would take a base of 10,000."""
    found = config.get("rope_parameters")
    if not isinstance(found, dict) or "rope_theta" not in found or "rope_theta" in config:
        return config
    scaling = {name: value for name, value in found.items() if name not in ("rope_theta", "partial_rotary_factor")}
    older: dict[str, Any] = {"rope_theta": found["rope_theta"], "rope_scaling": None}
    if scaling.get("rope_type", "default") != "default":
        older["rope_scaling"] = {**scaling, "type": scaling["rope_type"]}
    if "partial_rotary_factor" in found:
        older["partial_rotary_factor"] = found["partial_rotary_factor"]
    return config | older


def write_tokenizer_model(tokenizer: CodeTokenizer, sample: DatasetSample, folder: Path) -> None:
    """`tokenizer.model` for a tokenizer of SentencePiece's style: the base's own where it gives all files of the sample
    the ids that training had, otherwise one made of `tokenizer.json`, otherwise none."""
    path = folder / sentencepiece_model.NAME
    made = sentencepiece_model.make(tokenizer)
    if made is None:
        return
    for contents in (path.read_bytes() if path.exists() else None, made):
        if contents is not None and all(
            sentencepiece_model.gives_same_ids(contents, tokenizer, texts) for texts in texts_of(sample)
        ):
            path.write_bytes(contents)
            return
    path.unlink(missing_ok=True)
    log.warning("no tokenizer.model gives the ids of tokenizer.json: programs that need one cannot read this model")


def end_middles(tokenizer: CodeTokenizer, folder: Path) -> None:
    """Let `generate` stop at the token that ends a middle, for a model that was tuned to fill in."""
    fim, path = FimTokens.find(tokenizer), folder / GENERATION[0]
    if fim is None or fim.end == tokenizer.eos:
        return
    settings = read_json(path) if path.exists() else {}
    ends = settings.get("eos_token_id", tokenizer.eos)
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    write_json(path, settings | {"eos_token_id": [*known, *({fim.end} - {*known})]})


def texts_of(sample: DatasetSample) -> Iterator[list[str]]:
    """All files of a sample, some at a time."""
    for name in ("train.parquet", "held_out.parquet"):
        with by_parts(sample.path / name) as file:
            for batch in file.iter_batches(batch_size=64, columns=["content"]):
                yield batch.column(0).to_pylist()
