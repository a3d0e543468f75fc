"""Tokenizers made of older files: the same ids as the original's, or none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from tasks.models import conversion
from tasks.models.vocabulary import encode, load_tokenizer
from tests.tasks.tokenization import toys

TEXT = "".join(toys.CORPUS) + Path(conversion.__file__).read_text(encoding="utf-8")


def sentencepiece(folder: Path, kind: str, **settings: Any) -> Path:
    """A folder with a real `tokenizer.model` and no `tokenizer.json`."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(filter(str.strip, TEXT.splitlines())), encoding="utf-8")
    defaults = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    options = {**defaults, "vocab_size": 500, "minloglevel": 2, **settings}
    trainer.train(input=str(corpus), model_prefix=str(folder / "tokenizer"), model_type=kind, **options)
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def test_a_tokenizer_of_sentencepiece_gives_the_same_ids(tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path, "bpe")
    theirs = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    texts = [*toys.CORPUS, TEXT, "  x\n", "é日本語\t\r\n"]
    assert [encode(load_tokenizer(folder), text) for text in texts] == theirs.encode(texts)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("unigram", {}),  # which transformers takes for a BPE, since a Llama has one
        ("bpe", {"user_defined_symbols": ["▁▁▁▁▁▁", "return"]}),  # which go before every merge
        ("bpe", {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}),
    ],
    ids=["unigram", "symbols", "normalizing"],
)
def test_a_conversion_that_gives_other_ids_is_refused(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path, kind, **settings)
    with pytest.raises(InputError, match=r"ids for \d+ of \d+ ") as caught:
        load_tokenizer(folder)
    assert caught.value.field == "model.name" and "tokenizer.json" in str(caught.value.remedy)


def test_merges_go_by_the_scores_of_pieces(tmp_path: Path) -> None:
    pieces = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    path = sentencepiece(tmp_path, "bpe", allow_whitespace_only_pieces=True) / "tokenizer.model"
    model = pieces.ModelProto.FromString(path.read_bytes())
    spaces = next(piece for piece in model.pieces if piece.piece == "▁▁")
    spaces.score = -1e9  # Mistral's are the first of its pieces, and are merged after all others
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="gives other ids"):
        load_tokenizer(tmp_path)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    monkeypatch.setattr(conversion, "find_spec", lambda name: None if name == "sentencepiece" else importlib.util)
    with pytest.raises(InputError, match="sentencepiece") as caught:
        conversion.convert(tmp_path)
    assert caught.value.field == "model.name" and str(caught.value.remedy).startswith("pip install sentencepiece, ")


def test_a_tokenizer_that_cannot_be_compared_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")  # as tiktoken writes them
    with pytest.raises(InputError, match=f"{tmp_path / 'tokenizer.model'} .*SentencePiece") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.field == "model.name" and "tokenizer.json" in str(caught.value.remedy)
