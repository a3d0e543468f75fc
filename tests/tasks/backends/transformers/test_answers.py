"""Greedy answers: the same whatever shares the batch, and the same as transformers'."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from tasks.backends.contract import Decoding
from tasks.backends.transformers.answers import generate
from tests.tasks.generation.world import toy

DECODING = Decoding(batch_size=16, max_new_tokens=24, stop=frozenset(range(0, 97, 12)), pad=0)


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(1, 97) for _ in range(rng.randrange(1, 40))] for _ in range(count)]


def test_batch_mates_change_nothing() -> None:
    asked = prompts(37)
    together = generate(toy(), asked, DECODING)
    alone = generate(toy(), asked, replace(DECODING, batch_size=1))
    assert together == alone
    assert len(set(map(len, together))) > 5, "answers of one length do not test rows leaving the batch"


def test_answers_that_few_batch_mates_are_left_for_go_on_together() -> None:
    """Those of four batches that never end do not take four times as many steps as they are long."""
    model, steps = toy(), 0

    def count(*_: object, **__: object) -> None:
        nonlocal steps
        steps += 1

    model.register_forward_pre_hook(count, with_kwargs=True)
    never, ended = frozenset({97}), lambda answer: answer[0] % 8 > 0
    long = replace(DECODING, max_new_tokens=64, stop=never, ended=ended)
    answers = generate(model, prompts(64), long)
    assert sum(len(answer) == 64 for answer in answers) > 4 and steps < 3 * 64


def test_answers_are_those_of_transformers() -> None:
    model, asked = toy(), prompts(6)
    decoding = replace(DECODING, stop=frozenset({96}))
    for prompt, answer in zip(asked, generate(model, asked, decoding), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=96,
            pad_token_id=0,
        )
        assert answer == expected[0, len(prompt) :].tolist()


def test_an_answer_ends_with_its_first_stop_token() -> None:
    for answer in generate(toy(), prompts(20), DECODING):
        assert not DECODING.stop & set(answer[:-1])
        assert answer[-1] in DECODING.stop or len(answer) == 24


def test_progress_counts_every_prompt() -> None:
    counts: list[int] = []
    generate(toy(), prompts(37), DECODING, counts.append)
    assert sum(counts) == 37 and len(counts) > 3, "no answer was put aside"


def test_no_prompts_no_answers() -> None:
    assert generate(toy(), [], DECODING) == []
