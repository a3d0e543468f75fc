"""The settings of the stage, and what can be said about them before anything large is downloaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from artifacts.configuration import Config, Real, Seed, Share, Size, Tokens, Unkeyed
from artifacts.errors import InputError
from tasks.families.chat import ChatTemplate, find_template
from tasks.families.marks import FimTokens
from tasks.models.architecture import read_config
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer, try_out

Format = Literal["causal", "fim", "instruct"]

INSTRUCT_LENGTH = 64
"""Tokens below which an instruction leaves no room for an answer."""


class ContextConfig(Config):
    """Sequences that begin with other files of the repository, as editors send them through llama.cpp's server."""

    share: Share = 0.5
    """The share of rearranged chunks that get such a beginning, where the repository has related files."""
    max_tokens: Tokens = Field(256, ge=32)
    """Its longest, in tokens of the sequence, of which it never takes more than half. So much less of the file has room
    in it."""
    names: Literal["infill", "own"] = "infill"
    """What repository and file are called. `infill`: `myproject` and `filename`, which llama.cpp's server writes for
    all. `own`: their own name and path, for a consumer that writes these. Related files have their own paths always."""


class TokenizationConfig(Config):
    """How text becomes sequences of tokens."""

    format: Format = "causal"
    """`causal`: the text as it stands. `fim`: a part of the chunks rearranged so that the model learns to fill in the
    middle. `instruct`: an instruction that names the file, in the model's chat template, with loss on the
    answer only. Held-out text is causal
    always."""
    max_length: Tokens = Field(256, ge=8)
    """Tokens in a sequence, special tokens included. A longer file gives several sequences."""
    fim_rate: Share = 0.5
    """`fim` only: the share of chunks that is rearranged; the others stay causal."""
    spm_rate: Share = 0.5
    """`fim` only: the share of rearranged chunks with the suffix first (SPM), where the model's family knows both
    orders; the others have the family's own."""
    syntax_rate: Share = 0.0
    """`fim` only: the share of rearranged chunks whose middle is a piece of syntax (a statement, a block, a list of
    arguments, a whole body) where the file has a grammar; the other middles are drawn by lines and at random."""
    context: ContextConfig | None = None
    """`fim` only: rearranged chunks behind other files of their repository, imported ones first. None: no chunk is."""
    question_rate: Real = Field(0.0, ge=0, le=0.9)
    """The share of training sequences, as far as files give so many, that are questions beside the files themselves:
    write this body, complete this test, explain this function, in the model's chat template, with the answer as it
    stands in the file and loss on the answer only. None are made of held-out text."""
    seed: Seed = 0
    """`fim`: decides which chunks are rearranged and where they are cut. With a `question_rate`: which questions are
    asked."""
    add_eos: bool = True
    """Whether the end-of-text token stands after the last token of a file."""
    batch_bytes: Size = Unkeyed(1 << 20)
    """Text that is tokenized at once, bytes (one file at least). Decides speed and memory."""

    @model_validator(mode="after")
    def _rearranges(self) -> TokenizationConfig:
        if self.format == "fim" and self.fim_rate == 0:
            raise ValueError("a fim_rate of 0 rearranges nothing; raise it, or set format to causal")
        return self

    @property
    def held_out(self) -> TokenizationConfig:
        """How held-out text is tokenized: as it stands, whatever is trained on."""
        return self.model_copy(update={"format": "causal", "question_rate": 0.0})

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes; what concerns another format does not."""
        values = super().keyed()
        unused = set() if self.format == "fim" else {"fim_rate", "spm_rate", "syntax_rate", "context", "seed"}
        if self.question_rate:
            unused.discard("seed")
        else:
            unused.add("question_rate")
        return {name: value for name, value in values.items() if name not in unused}


def check_tokenization(format: Format, max_length: int, model: ModelReference) -> None:  # noqa: A002 - the field's name
    """Find out from the model's metadata whether it can be fed so.

    Raises:
        InputError: `fim` without FIM tokens; `instruct` without a chat template; a `max_length` beyond the model's
            context, or too short for the format.
    """
    context = context_length(model)
    if context is not None and max_length > context:
        raise InputError(
            f"{max_length} tokens are more than the context of {model.name}, which is {context}",
            field="tokenization.max_length",
            remedy=f"set tokenization.max_length to {context} or less",
        )
    if format == "instruct" and max_length < INSTRUCT_LENGTH:
        raise InputError(
            f"{max_length} tokens leave no room for an answer after the instruction",
            field="tokenization.max_length",
            remedy=f"set tokenization.max_length to {INSTRUCT_LENGTH} or more, or tokenization.format=causal",
        )
    tokenizer = usable_tokenizer(model)
    if format == "fim":
        FimTokens.of(tokenizer)
    if format == "instruct":
        chat_template(model, "tokenization.format", "use tokenization.format=causal or fim")


def chat_template(model: ModelReference, field: str, remedy: str) -> ChatTemplate:
    """The model's own.

    Raises:
        InputError: it has none; `field` is what needs one, and `remedy` does without.
    """
    template = find_template(model.metadata)
    if template is None:
        raise InputError(
            f"{model.name} has no chat template, so it takes no instructions",
            field=field,
            remedy=f"{remedy}, or the instruct model of its family",
        )
    return template


def usable_tokenizer(model: ModelReference) -> CodeTokenizer:
    """The model's tokenizer, tried out.

    Raises:
        InputError: it cannot be used, does not go with the model, or does not come to an end.
    """
    tokenizer = load_tokenizer(model.metadata)
    try_out(model.metadata)
    return tokenizer


def context_length(model: ModelReference) -> int | None:
    """The longest sequence that the model has positions for; None where its configuration does not say."""
    settings = read_config(model.metadata)
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        if isinstance(settings.get(name), int):
            return int(settings[name])
    return None
