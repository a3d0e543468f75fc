"""Losses and answers of GGUF files by llama.cpp. It does not train, so it is none of the registry's backends: it
computes with what is shipped. Imports torch: import it inside functions only.

Sequences that answer together share a context; each has room of its own in it, so an answer does not depend on which
prompts it shares one with, but for the last bits of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy

from tasks.backends.contract import Decoding
from tasks.gguf.loaded import GgufModel
from tasks.models.healing import restricted

NAME = "llama.cpp"
STEPS = 8
"""Tokens between two looks at whether an answer's text says that it has ended."""


class GgufComputing:
    """See `tasks.backends.contract.Computing`."""

    def __init__(self, model: GgufModel) -> None:
        self.model = model

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        # what comes after the last token that counts is padding, or might as well be
        lengths = [int(row.nonzero().max()) + 1 if row.any() else 1 for row in counts]
        sums = []
        with self.model.computing(max(lengths), 1, torch.get_num_threads()) as context:
            for row, counted, length in zip(ids, counts, lengths, strict=True):
                logits = context.logits(row[:length].tolist())
                loss = cross_entropy(logits[:-1], row[1:length], reduction="none")
                sums.append(loss[counted[1:length]].double().sum())
        return torch.stack(sums)

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
        for at in range(0, len(order), decoding.batch_size):
            rows = order[at : at + decoding.batch_size]
            self._answer(rows, prompts, answers, decoding)
            done(len(rows))
        return answers

    def _answer(
        self, rows: Sequence[int], prompts: Sequence[Sequence[int]], answers: list[list[int]], decoding: Decoding
    ) -> None:
        """The answers to the prompts of some rows, all at once."""
        length = max(len(prompts[row]) for row in rows) + decoding.max_new_tokens
        with self.model.computing(length, len(rows), torch.get_num_threads()) as context:
            logits = torch.stack([context.read(prompts[row], place) for place, row in enumerate(rows)])
            first = [decoding.first[row] if decoding.first else () for row in rows]
            running = list(enumerate(rows))
            chosen = restricted(logits, first).argmax(-1).tolist()
            while True:
                for (_, row), token in zip(running, chosen, strict=True):
                    answers[row].append(token)
                running = [
                    (place, row)
                    for place, row in running
                    if not self._ended(answers[row], decoding, free=len(answers[row]) > 1 or not first[place])
                ]
                if not running:
                    return
                tokens = [
                    (answers[row][-1], len(prompts[row]) + len(answers[row]) - 1, place) for place, row in running
                ]
                chosen = context.next(tokens).argmax(-1).tolist()

    def _ended(self, answer: list[int], decoding: Decoding, *, free: bool) -> bool:
        """`free`: the last token was not one of those that an answer had to begin with, which end none."""
        if len(answer) >= decoding.max_new_tokens or (free and answer[-1] in decoding.stop):
            return True
        return decoding.ended is not None and len(answer) % STEPS == 0 and decoding.ended(answer)
