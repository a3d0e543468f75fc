"""Token healing: a prompt may end within what the tokenizer would write as one token.

Where a line break and the spaces after it are one token (SmolLM, StarCoder, GPT-2), a prompt that ends with the bare
line break tells the model that no indentation follows: had there been one, the token would have been another. So the
last token is taken back, and the answer has to begin with a token whose text begins with the one taken. `bench.healing`
measures what that is worth.

Prompts with text after the gap need none: in training, too, the text before the gap is tokenized by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tasks.models.vocabulary import CodeTokenizer

if TYPE_CHECKING:
    import torch


def healed(tokenizer: CodeTokenizer, ids: Sequence[int]) -> tuple[list[int], bytes]:
    """A prompt's ids without the last, and the text that the answer has to begin with instead; the prompt itself and
    no text where no token goes on from its last one, or nothing would be left."""
    last = tokenizer.pieces[ids[-1]] if len(ids) > 1 and ids[-1] < len(tokenizer.pieces) else b""
    if not last or all(tokenizer.pieces[index] == last for index in beginning_with(tokenizer, last)):
        return list(ids), b""
    return list(ids[:-1]), last


@lru_cache(maxsize=64)
def beginning_with(tokenizer: CodeTokenizer, text: bytes) -> tuple[int, ...]:
    """The tokens whose text begins so; none for no text."""
    return tuple(index for index, piece in enumerate(tokenizer.pieces) if piece.startswith(text)) if text else ()


def restricted(logits: torch.Tensor, allowed: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits (rows × vocabulary) with −∞ for all but the tokens allowed in a row; any are where none are named."""
    logits = logits.clone()
    for row, tokens in zip(logits, allowed, strict=True):
        if tokens:
            kept = row[list(tokens)]
            row.fill_(float("-inf"))
            row[list(tokens)] = kept
    return logits
