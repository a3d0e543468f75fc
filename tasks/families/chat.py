"""The model's own chat template, cut at the question and at the answer.

A template is a program in Jinja that comes with the model. transformers renders it, in its sandbox and in a process
that may take so much time and memory; what comes back is text around two words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from artifacts import reading
from artifacts.errors import InputError
from tasks.models.vocabulary import CodeTokenizer, encode
from tasks.processes import bounded

FIELD = "model.name"
_QUESTION, _ANSWER = "QUESTIONgoeshere", "ANSWERgoeshere"
_REMEDY = "restore chat_template.jinja or tokenizer_config.json as published, or set tokenization.format=causal"


@dataclass(frozen=True)
class ChatTemplate:
    """What stands around question and answer, special tokens by name."""

    before: str
    after: str
    """Between question and answer."""
    end: str
    """After the answer."""

    def ask(self, tokenizer: CodeTokenizer, question: str) -> list[int]:
        """A question with all that leads to its answer.

        Raises:
            Unrepresentable: the vocabulary cannot write it.
        """
        parts = [*split_marks(tokenizer, self.before), question, *split_marks(tokenizer, self.after)]
        return join_marks(tokenizer, parts)

    def ends(self, tokenizer: CodeTokenizer) -> list[int]:
        """The token that ends an answer; that of a document where the template writes none."""
        marks = [part for part in split_marks(tokenizer, self.end) if isinstance(part, int)]
        return marks[:1] or ([] if tokenizer.eos is None else [tokenizer.eos])


def find_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model's folder; None where it has none.

    Raises:
        InputError: it cannot be rendered, or does not show what is asked.
    """
    places = [folder / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    texts = [reading.read_text(place, field=FIELD) for place in places if place.exists()]
    if not any("chat_template" in text or "messages" in text for text in texts):
        return None
    return _found(folder, tuple(texts))


@lru_cache(maxsize=4)
def _found(folder: Path, _texts: tuple[str, ...]) -> ChatTemplate | None:
    told = bounded.ask("tasks.families.chat:render", folder, field=FIELD, remedy=_REMEDY)
    return None if told is None else ChatTemplate(*told)


def render(folder: Path) -> list[str] | None:
    """`before`, `after` and `end` of a `ChatTemplate`; None for a tokenizer without. Imports transformers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        return None
    asked = [{"role": "user", "content": _QUESTION}]
    try:
        question = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        answered = [*asked, {"role": "assistant", "content": _ANSWER}]
        whole = tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # whatever a program of the model raises
        problem = f"the chat template of {folder} cannot be rendered: {str(error).splitlines()[0][:200]}"
        raise InputError(problem, field=FIELD, remedy=_REMEDY) from error
    before, asks, after = question.partition(_QUESTION)
    _, answers, end = whole.partition(_ANSWER)
    if not asks or not answers:
        raise InputError(
            f"the chat template of {folder} leaves out what a user or the model says", field=FIELD, remedy=_REMEDY
        )
    return [before, after, end]


def split_marks(tokenizer: CodeTokenizer, text: str) -> list[str | int]:
    """A template's text, cut at the names of special tokens, with their ids in their place."""
    names = sorted(filter(None, tokenizer.ids), key=len, reverse=True)
    pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
    parts = pattern.split(text) if pattern else [text]
    return [tokenizer.ids[part] if number % 2 else part for number, part in enumerate(parts) if part]


def join_marks(tokenizer: CodeTokenizer, parts: Iterable[str | int], *, continues: bool = False) -> list[int]:
    """The ids of texts and special tokens; texts that meet are one text. The rest as `encode` has it."""
    ids: list[int] = []
    for is_text, some in groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            ids += encode(tokenizer, "".join(map(str, some)), continues=continues)
            continues = True
        else:
            ids += map(int, some)
    return ids
