"""What the model can do on packages that it never saw: loss, next line, single-line infilling."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from base_model.corpus import SourceFile, read_corpus
from base_model.tokenizer import BOS, EOS, EOT
from base_model.windows import Infilling, filled_lines

PREFIX_TOKENS = 512
"""Longest text before the line, in tokens."""
SUFFIX_TOKENS = 256
"""Longest text after the line, in tokens."""
NEW_TOKENS = 64
"""Tokens that the model may write for a line."""


@dataclass(frozen=True)
class Question:
    """One line of a file: what comes before it, the line without its newline, what comes after."""

    before: str
    line: str
    after: str


def choose_questions(files: Sequence[SourceFile], count: int, seed: int) -> list[Question]:
    """Draw lines of at least four characters, evenly over files, leaving out the first two lines."""
    rng = random.Random(seed)
    questions: list[Question] = []
    while len(questions) < count:
        text = rng.choice(files).text
        spans = [span for span in filled_lines(text)[2:] if len(text[slice(*span)].strip()) >= 4]
        if spans:
            start, end = rng.choice(spans)
            questions.append(Question(text[:start], text[start:end], text[end:]))
    return questions


@torch.inference_mode()
def held_out_loss(
    model: PreTrainedModel, files: Sequence[SourceFile], tokenizer: Tokenizer, context: int
) -> dict[str, float]:
    """Mean loss over files, each cut into its own windows, whose first tokens are not predicted."""
    windows: list[list[int]] = []
    for file in files:
        ids = [*tokenizer.encode(file.text).ids, tokenizer.token_to_id(EOS)]
        windows += [ids[at : at + context] for at in range(0, len(ids), context)]
    total, tokens = 0.0, 0
    windows.sort(key=len)
    size = max(1, 65536 // context)
    for at in range(0, len(windows), size):
        group = windows[at : at + size]
        width = max(map(len, group))
        ids = torch.tensor([[*w, *[0] * (width - len(w))] for w in group], device=model.device)
        labels = torch.tensor([[*w, *[-100] * (width - len(w))] for w in group], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        total += cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum").item()
        tokens += int((labels[:, 1:] != -100).sum())
    characters = sum(len(file.text) for file in files)
    return {
        "nats_per_token": total / tokens,
        "nats_per_character": total / characters,
        "tokens": tokens,
        "characters": characters,
        "context": context,
    }


@torch.inference_mode()
def complete(model: PreTrainedModel, prompts: list[list[int]], stops: list[int], batch: int) -> list[list[int]]:
    """Greedy continuations of prompts, without the stop token."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        width = max(len(prompts[index]) for index in chosen)
        ids = torch.tensor([[*[0] * (width - len(prompts[i])), *prompts[i]] for i in chosen], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
        new = generate(model, ids, mask.to(model.device), stops)
        for index, row in zip(chosen, new.tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in stops), None)
            answers[index] = row if end is None else row[:end]
    return answers


def generate(model: PreTrainedModel, ids: Tensor, mask: Tensor, stops: list[int]) -> Tensor:
    """Greedy new tokens [batch, at most NEW_TOKENS] for left-padded prompts."""
    settings = {
        "max_new_tokens": NEW_TOKENS,
        "do_sample": False,
        "eos_token_id": stops,
        "pad_token_id": stops[0],
    }
    return model.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :]


def next_line(model: PreTrainedModel, questions: list[Question], tokenizer: Tokenizer, batch: int) -> float:
    """Share of lines that the model writes exactly from what comes before, up to a newline."""
    bos, newline = tokenizer.token_to_id(BOS), tokenizer.token_to_id("<0x0A>")
    stops = [newline, tokenizer.token_to_id(EOS), tokenizer.token_to_id(EOT)]
    prompts = [
        [bos, *tokenizer.encode(question.before, add_special_tokens=False).ids[-PREFIX_TOKENS:]]
        for question in questions
    ]
    return exact(complete(model, prompts, stops, batch), questions, tokenizer)


def infill(
    model: PreTrainedModel, questions: list[Question], tokenizer: Tokenizer, batch: int, *, suffix_first: bool
) -> float:
    """Share of lines that the model infills exactly: the whole line with its indentation, then `▁<EOT>`."""
    infilling = Infilling.of(tokenizer, 1 << 20)
    prompts = []
    for question in questions:
        before = infilling.ids(question.before, first=True)[-PREFIX_TOKENS:]
        after = infilling.ids(question.after)[:SUFFIX_TOKENS] if question.after else []
        prompts.append(infilling.prompt(before, after, suffix_first))
    stops = [tokenizer.token_to_id(EOT), tokenizer.token_to_id(EOS)]
    return exact(complete(model, prompts, stops, batch), questions, tokenizer)


def exact(answers: list[list[int]], questions: list[Question], tokenizer: Tokenizer) -> float:
    """Share of answers that are the line, character by character, up to trailing white space."""
    # decoding drops one leading space, so a token that it may not drop goes first
    guard = tokenizer.token_to_id("<0x0A>")
    texts = [tokenizer.decode([guard, *answer], skip_special_tokens=False)[1:] for answer in answers]
    pairs = zip(texts, questions, strict=True)
    return sum(text.rstrip() == question.line.rstrip() for text, question in pairs) / len(questions)


def evaluate(folder: Path, held_out: Path, *, count: int, batch: int) -> dict[str, object]:
    """Measure the saved fp16 model; write evaluation.json beside it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = torch.float16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=precision).to(device).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    files = read_corpus(held_out)
    questions = choose_questions(files, count, seed=7)
    figures: dict[str, object] = {
        "loss": held_out_loss(model, files, tokenizer, 1024),
        "loss_256": held_out_loss(model, files, tokenizer, 256),
        "next_line_exact": next_line(model, questions, tokenizer, batch),
        "infill_psm_exact": infill(model, questions, tokenizer, batch, suffix_first=False),
        "infill_spm_exact": infill(model, questions, tokenizer, batch, suffix_first=True),
        "questions": count,
        "prefix_tokens": PREFIX_TOKENS,
        "suffix_tokens": SUFFIX_TOKENS,
        "precision": str(precision).removeprefix("torch."),
    }
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures
