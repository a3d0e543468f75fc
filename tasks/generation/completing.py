"""One prompt, answered by an exported model and by its base: for a person who wants to try them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts import reading
from artifacts.errors import InputError
from artifacts.lineage import LARGEST, LINEAGE
from artifacts.lines import first_line, lines_of, without_end
from artifacts.schema import Plan, Quantization
from tasks import backends
from tasks.families.marks import FimTokens
from tasks.families.prompting import Prompt, gap_prompt, text_before
from tasks.models.adapter_files import check_finite, read_adapter
from tasks.models.base_model import ModelConfig, check_unchanged, fetch, locate
from tasks.models.files import ADAPTER_CONFIG, CONFIG, read_json
from tasks.models.healing import beginning_with, healed
from tasks.models.residual import unsupported
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode_bytes, line_breaks
from tasks.tokenization.config import context_length, usable_tokenizer

LARGEST_FILE = 1 << 30
"""Bytes of a file with a gap: it is read whole to count its lines."""
LONGEST_TEXT = 32_768
"""Tokens of prompt and answer at most, whatever the context: more takes minutes and adds little."""
LEAST_PROMPT = 16
"""Tokens of the context that an answer leaves for the prompt at least."""


@dataclass(frozen=True)
class CompletionRequest:
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
    left_out_before: int = 0
    """Characters at the beginning of the text that the models did not see: it is longer than their context."""
    left_out_after: int = 0
    """The same at its end."""
    context: int = 0
    """Tokens that prompt and answer have together."""


def read_gap(file: Path, line: int) -> tuple[str, str, str]:
    """The text before a line of a file, the line itself, and the text after it.

    Lines count from 1 as editors count them; after a last line break there is one more, which is empty.

    Raises:
        InputError: there is no such file or line, or it is no UTF-8 text.
    """
    remedy = "give a file of source code in UTF-8"
    text = reading.read_text(file, limit=LARGEST_FILE, field="--file", remedy=remedy)
    if "\0" in text:
        raise InputError(f"{file} cannot be read: it has NUL bytes, so it is no text", field="--file", remedy=remedy)
    lines = lines_of(text)
    if not lines or lines[-1] != without_end(lines[-1]):
        lines.append("")
    if not 1 <= line <= len(lines):
        raise InputError(
            f"there is no line {line} in {file}, which has {len(lines):,}",
            field="--line",
            remedy=f"name one of 1 to {len(lines)}",
        )
    return "".join(lines[: line - 1]), without_end(lines[line - 1]), "".join(lines[line:])


def base_of(folder: Path) -> ModelConfig:
    """The base model that an export's adapter names, at the revision that it was trained on.

    Raises:
        InputError: the folder is no export, or an incomplete one.
    """
    remedy = "name the folder that a run prints as `model`, or a version that `codetune models` lists"
    path = folder / "adapter" / ADAPTER_CONFIG
    if not path.exists():
        raise InputError(
            f"{folder} is no exported model: it has no adapter/{ADAPTER_CONFIG}", field="MODEL", remedy=remedy
        )
    settings = reading.read_object(path, field="MODEL", remedy=remedy)
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str | None):
        raise InputError(
            f"{path} names no base model: base_model_name_or_path is {name!r}, revision {revision!r}",
            field="MODEL",
            remedy="export the model again, or write the base's name and commit there",
        )
    with reading.blamed_on(path, field="MODEL", remedy="export the model again"):
        return ModelConfig(name=name, revision=revision or None)


def complete(folder: Path, question: CompletionRequest, *, new_tokens: int, quantization: Quantization) -> Answers:
    """The greedy answers of both models; one is loaded, and its adapter switched off and on.

    Of a text that is longer than the model's context they see what is nearest to the gap.

    Args:
        folder: an export, with `adapter/`.
        new_tokens: most tokens of an answer.

    Raises:
        InputError: the export is incomplete or made for another base; the vocabulary cannot write the text, or has no
            fill-in-the-middle tokens where there is text after the gap; the answer leaves no room for a prompt.
    """
    import torch

    from tasks.backends.contract import Decoding
    from tasks.generation.models import Pair

    named = base_of(folder)
    check_finite(read_adapter(folder / "adapter"))  # before anything large is read
    recorded = _recorded(folder)
    try:
        model = locate(named)
        check_unchanged(model, recorded)
    except InputError as error:  # whose name is not what the person gave
        problem = f"the base model of {folder} cannot be used: {error.problem}"
        raise InputError(problem, field=error.field, remedy=error.remedy) from error
    tokenizer = usable_tokenizer(model)
    fim = FimTokens.of(tokenizer) if question.after is not None else FimTokens.find(tokenizer)
    context = min(context_length(model) or LONGEST_TEXT, LONGEST_TEXT)
    if new_tokens > context - LEAST_PROMPT:
        raise InputError(
            f"{new_tokens} tokens leave no room for a prompt in the model's context of {context}",
            field="--new-tokens",
            remedy=f"ask for {context - LEAST_PROMPT} or fewer",
        )
    prompt = _prompt(question, tokenizer, fim, context - new_tokens)
    ends = {index for index in (tokenizer.eos, fim.end if fim else None) if index is not None}
    if question.single_line:
        ends |= line_breaks(tokenizer)
    first = [beginning_with(tokenizer, prompt.start)]
    decoding = Decoding(1, new_tokens + bool(prompt.start), frozenset(ends), first=first)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = "fp16" if device == "cuda" else "fp32"
    plan = Plan(
        device=device,
        precision=precision,
        # whether the model needs it is not known here, and it costs little
        fp32_residual=device == "cuda" and unsupported(read_json(model.metadata / CONFIG)) is None,
        micro_batch=1,
        accumulation=1,
        gradient_checkpointing=False,
        backend=backends.NAMES[-1],
    )
    pair = Pair(fetch(model), folder / "adapter", quantization, plan)
    pair.prepare(len(prompt.ids) + decoding.max_new_tokens)
    answers = {}
    for side in ("base", "tuned"):
        with pair.side(side) as computing:
            (found,) = computing.generate([prompt.ids], decoding, lambda count: None)
        pair.check(side, [*prompt.ids, *found])
        text = decode_bytes(tokenizer, found, continues=True)[len(prompt.start) :].decode(errors="replace")
        answers[side] = first_line(text) if question.single_line else text
    return Answers(
        **answers,
        left_out_before=max(0, len(question.before) - len(prompt.before)),
        left_out_after=max(0, len(question.after or "") - len(prompt.after)),
        context=context,
    )


def _recorded(folder: Path) -> str | None:
    """The base model's fingerprint, where the export has its lineage beside it.

    Raises:
        InputError: the lineage does not say.
    """
    if not (folder / LINEAGE).exists():
        return None
    told = reading.read_object(folder / LINEAGE, limit=LARGEST, field="MODEL")
    inputs = told.get("inputs")
    model = inputs.get("model") if isinstance(inputs, dict) else None
    fingerprint = model.get("fingerprint") if isinstance(model, dict) else None
    if not isinstance(fingerprint, str):
        raise InputError(
            f"{folder / LINEAGE} does not tell which base model the adapter was trained on",
            field="MODEL",
            remedy="restore the file, or export the model again",
        )
    return fingerprint


def _prompt(question: CompletionRequest, tokenizer: CodeTokenizer, fim: FimTokens | None, room: int) -> Prompt:
    """What is asked, in at most `room` tokens."""
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    before, after = question.before, question.after
    try:
        if after is not None and fim:
            return gap_prompt(before + after, len(before), len(before), tokenizer, fim, room)
        kept = text_before(before, len(before), tokenizer, room - len(start))
    except (Unrepresentable, UnicodeEncodeError) as error:
        raise InputError(
            f"the prompt cannot be written with the model's vocabulary: {error}",
            field="--prompt",
            remedy="give text in UTF-8, or leave out what is not of a programming language",
        ) from error
    if not start and not kept.ids:
        raise InputError("there is nothing to go on from", field="--prompt", remedy="give some text")
    ids, begin = healed(tokenizer, [*start, *kept.ids])
    return Prompt(ids, kept.text, "", begin)
