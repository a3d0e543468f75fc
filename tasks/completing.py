"""One prompt, answered by an exported model and by its base: for a person who wants to try them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import InputError
from artifacts.schema import Plan, Quantization
from tasks.base_model import ModelConfig, fetch, locate
from tasks.model_files import ADAPTER_CONFIG, read_json
from tasks.tokenization.vocabulary import FimTokens, Unrepresentable, decode, encode, fim_prompt, load_tokenizer


@dataclass(frozen=True)
class Question:
    """What is to be completed."""

    before: str
    after: str | None = None
    """The text after the gap; None to go on from `before`."""
    single_line: bool = False
    """Whether the answer ends with its first line."""


@dataclass(frozen=True)
class Answers:
    """What both models made of it."""

    base: str
    tuned: str


def read_gap(file: Path, line: int) -> tuple[str, str, str]:
    """The text before a line of a file, the line itself, and the text after it. Lines count from 1.

    Raises:
        InputError: there is no such file or line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {file}: {reason}", field="--file", remedy="check the path") from error
    if not 1 <= line <= len(lines) + 1:
        raise InputError(f"{file} has {len(lines)} lines", field="--line", remedy=f"name one of 1 to {len(lines) + 1}")
    truth = lines[line - 1] if line <= len(lines) else ""
    return "".join(lines[: line - 1]), truth.rstrip("\n"), "".join(lines[line:])


def base_of(folder: Path) -> str:
    """The base model that an export's adapter names.

    Raises:
        InputError: the folder is no export, or an incomplete one.
    """
    try:
        return str(read_json(folder / "adapter" / ADAPTER_CONFIG)["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is no exported model: its adapter/{ADAPTER_CONFIG} is missing or cannot be read",
            field="MODEL",
            remedy="name the folder that a run prints as `model`, or a version that `codetune models` lists",
        ) from error


def complete(folder: Path, question: Question, *, new_tokens: int, quantization: Quantization) -> Answers:
    """The greedy answers of both models; one is loaded, and its adapter switched off and on.

    Args:
        folder: an export, with `adapter/`.
        new_tokens: most tokens of an answer.

    Raises:
        InputError: the export is incomplete or made for another base; the vocabulary cannot write the text, or has no
            fill-in-the-middle tokens where there is text after the gap.
    """
    import torch

    from tasks.generation.answers import Decoding
    from tasks.generation.models import Pair

    model = locate(ModelConfig(name=base_of(folder)))
    tokenizer = load_tokenizer(model.metadata)
    fim = FimTokens.of(tokenizer) if question.after is not None else FimTokens.find(tokenizer)
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    try:
        prompt = [*start, *encode(tokenizer, question.before)]
        if question.after is not None and fim:
            after = encode(tokenizer, question.after, continues=True)
            prompt = fim_prompt(fim, tokenizer.bos, encode(tokenizer, question.before), after)
    except Unrepresentable as error:
        raise InputError(f"the prompt cannot be tokenized: {error}", field="--prompt") from error
    if not prompt:
        raise InputError("there is nothing to go on from", field="--prompt", remedy="give some text")
    breaks = (
        {index for index, piece in enumerate(tokenizer.pieces) if b"\n" in piece} if question.single_line else set()
    )
    ends = {index for index in (tokenizer.eos, fim.end if fim else None) if index is not None}
    decoding = Decoding(1, new_tokens, frozenset(breaks | ends), tokenizer.ids.get("<unk>", 0))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = "fp16" if device == "cuda" else "fp32"
    plan = Plan(device=device, precision=precision, micro_batch=1, accumulation=1, gradient_checkpointing=False)
    pair = Pair(fetch(model), folder / "adapter", quantization, plan, len(prompt) + new_tokens)
    answers = {}
    for side in ("base", "tuned"):
        with pair.side(side) as computing:
            (found,) = computing.generate([prompt], decoding, lambda count: None)
        text = decode(tokenizer, found, continues=True)
        answers[side] = text.partition("\n")[0] if question.single_line else text
    return Answers(**answers)
