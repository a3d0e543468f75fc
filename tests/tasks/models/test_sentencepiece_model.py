"""`tokenizer.model` made of a `tokenizer.json`: SentencePiece itself has to come to the same ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tasks.models.sentencepiece_model import NAME, gives_same_ids, make
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer
from tests.conftest import BASE_MODEL, ROOT
from tests.tasks.tokenization import toys

TEXTS = [path.read_text() for path in sorted((ROOT / "tasks").rglob("*.py"))]
TEXTS += ["", "x", "   deep", "naïve “日本”\r\n\t\tif x:\n\n\n", "<s> </s> <unk> <0x41> ▁<PRE>"]


@pytest.fixture(scope="module")
def built_in() -> CodeTokenizer:
    return load_tokenizer(BASE_MODEL)


def test_the_built_in_model_gets_one_that_gives_its_ids(built_in: CodeTokenizer) -> None:
    made = make(built_in)
    assert made is not None and gives_same_ids(made, built_in, TEXTS)


def test_special_tokens_keep_their_ids_and_are_never_read_from_text(built_in: CodeTokenizer) -> None:
    from sentencepiece import SentencePieceProcessor

    made = SentencePieceProcessor(model_proto=make(built_in))
    assert made.vocab_size() == built_in.vocabulary_size == 4096
    assert (made.unk_id(), made.bos_id(), made.eos_id(), made.pad_id()) == (0, 1, 2, -1)
    assert all(
        made.PieceToId(name) == index and made.IsControl(index) for name, index in list(built_in.ids.items())[1:]
    )


def test_equal_scores_are_found_out(built_in: CodeTokenizer) -> None:
    """What the converter falls back to without a `tokenizer.model`."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(make(built_in))
    for piece in model.pieces:
        piece.score = -1000.0
    assert not gives_same_ids(model.SerializeToString(), built_in, TEXTS)
    assert not gives_same_ids(b"no model", built_in, TEXTS)


def test_holes_in_a_vocabulary_and_one_of_32016_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toys.code_llama(tmp_path))
    made = make(tokenizer)
    assert made is not None and gives_same_ids(made, tokenizer, TEXTS[-5:] + toys.CORPUS)


def test_a_byte_level_tokenizer_has_none(tmp_path: Path) -> None:
    assert make(load_tokenizer(toys.byte_level(tmp_path))) is None


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "CodeLlamaTokenizerFast"])
def test_transformers_reads_the_same_with_and_without_it(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = []
    for name in ("without", "with"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "tokenizer.json"):
            shutil.copy(BASE_MODEL / file, folder)
        settings = json.loads((BASE_MODEL / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        if name == "with":
            (folder / NAME).write_bytes(make(load_tokenizer(folder)) or b"")
        found.append(AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"])
    assert found[0] == found[1]
