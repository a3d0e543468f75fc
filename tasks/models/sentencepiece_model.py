"""`tokenizer.model` of SentencePiece, made of a `tokenizer.json` for programs that read only the former.

llama.cpp's converter, Ollama's and others take scores from it. Without it they give every piece the same score, merge
in another order than the model was trained with, and say nothing. SentencePiece merges the neighbours whose piece has
the highest score, so a score is the negative rank of the merge that makes the piece. Two vocabularies with the same
pieces may still merge differently: what is made here counts only where `gives_same_ids` says so.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from tasks.models.vocabulary import BYTE_PIECE, SPACE, CodeTokenizer, encode_batch

NAME = "tokenizer.model"
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6
_BPE = 2


def make(tokenizer: CodeTokenizer) -> bytes | None:
    """The file's contents; None where the tokenizer is no BPE of SentencePiece's style with byte fallback.

    Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    model = json.loads(tokenizer.description)["model"]
    unknown = model.get("unk_token")
    if tokenizer.space_bytes is None or model["type"] != "BPE" or unknown not in model["vocab"]:
        return None
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    names = {index: piece for piece, index in model["vocab"].items()}
    names |= {index: name for name, index in tokenizer.ids.items()}
    special = set(tokenizer.ids.values())
    pieces = b""
    for index in range(tokenizer.vocabulary_size):
        piece = names.get(index, f"[PAD{index}]")
        if piece == unknown:
            kind = _UNKNOWN
        elif index in special:
            kind = _CONTROL
        elif index not in names:
            kind = _UNUSED
        else:
            kind = _BYTE if BYTE_PIECE.fullmatch(piece) else _NORMAL
        # a piece that no merge makes is a single character, or is never made
        score = -float(ranks.get(piece, len(ranks) + index)) if kind == _NORMAL else 0.0
        pieces += _text(1, _text(1, piece.encode()) + _float(2, score) + _number(3, kind))
    trainer = _number(3, _BPE) + _number(4, tokenizer.vocabulary_size) + _number(35, 1)
    for number, index in enumerate((model["vocab"][unknown], tokenizer.bos, tokenizer.eos, None), start=40):
        trainer += _number(number, -1 if index is None else index)  # unknown, BOS, EOS, padding; their names 5 further
        trainer += b"" if index is None else _text(number + 5, names[index].encode())
    normalizer = _text(1, b"identity") + _number(3, tokenizer.leading_space) + _number(4, 0) + _number(5, 1)
    return pieces + _text(2, trainer) + _text(3, normalizer)


def gives_same_ids(contents: bytes, tokenizer: CodeTokenizer, texts: Sequence[str]) -> bool:
    """Whether SentencePiece comes to the ids that training has, on all texts. `▁` is left out: it cannot write that."""
    from sentencepiece import SentencePieceProcessor

    try:
        theirs = SentencePieceProcessor(model_proto=contents)
    except RuntimeError:  # no model of SentencePiece
        return False
    given = [text.replace(SPACE, "_") for text in texts]
    return all(
        ours is None or ours == its
        for ours, its in zip(encode_batch(tokenizer, given), theirs.encode(given), strict=True)
    )


def _number(field: int, value: int) -> bytes:
    value &= (1 << 64) - 1
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
