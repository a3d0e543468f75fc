"""`tokenizer.json` made of the older files of a tokenizer, by transformers, and compared with the original.

A SentencePiece model says more than its vocabulary: whether it is a BPE or a unigram model, in which order pieces are
merged, and which go before all merges. A conversion that misses this gives other ids and still gives every text back,
so that only a comparison on text finds it. transformers 5.23 merges in the order of the ids. That is wrong for Mistral,
whose runs of spaces have the first ids and are merged last.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from artifacts.errors import InputError
from tasks.models.vocabulary import MISSING, SPACE, encode_batch, make_tokenizer

FIELD = "model.name"
FOREIGN = "naïve — “日本語”\r\n\t\tif x:\r\n\t\t\treturn 0x1F / 3.14159e-10  # 👩‍👩‍👧 Größe\r\n"
INDENTED = "".join(" " * width + f"deep = {width}\n" for width in range(25))
"""What the sources of this folder, which are compared as well, do not have."""


def convert(folder: Path) -> str:
    """`tokenizer.json` for a model folder without. Imports transformers.

    Raises:
        InputError: `tokenizer.model` is of another kind than SentencePiece's, or cannot be read without a package that
            is not installed, or the conversion gives other ids than the original.
    """
    original = folder / "tokenizer.model"
    if original.exists():
        _check_readable(original)
    from transformers import AutoTokenizer

    converted = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    written = str(converted.backend_tokenizer.to_str())
    if original.exists():
        _compare(original, written)
    return written


def _check_readable(original: Path) -> None:
    with original.open("rb") as file:
        first = file.read(1)
    if first != b"\n":  # the tag of a protocol buffer's first field, the pieces
        raise InputError(f"{original} is no model of SentencePiece", field=FIELD, remedy=MISSING)
    if find_spec("sentencepiece") is None:
        raise InputError(
            f"{original} can be read only with the package sentencepiece, which is not installed",
            field=FIELD,
            remedy=f"pip install sentencepiece, or {MISSING}",
        )


def _compare(original: Path, written: str) -> None:
    from sentencepiece import SentencePieceProcessor

    theirs = SentencePieceProcessor(model_file=str(original))
    ours = make_tokenizer(original.parent, json.loads(written))
    sources = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    texts = [FOREIGN, INDENTED, *(text.replace(SPACE, "_") for text in sources if text)]
    other = sum(mine != its for mine, its in zip(encode_batch(ours, texts), theirs.encode(texts), strict=True))
    if other:
        raise InputError(
            f"{original} cannot be used: transformers converts it to a tokenizer that gives other ids for {other} of "
            f"{len(texts)} texts",
            field=FIELD,
            remedy=MISSING,
        )
