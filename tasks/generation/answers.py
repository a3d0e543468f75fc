"""Greedy answers to many prompts at once.

Prompts of like length share a batch, padded on the left and masked by attention. A row that is finished leaves the
batch, so that one long answer does not keep the others computing. Keys and values lie in memory set aside once for
the whole answer: `DynamicCache` of transformers copies all of them at every token.

An answer does not depend on which prompts share its batch, but for the last bits of the logits (for int8 on a GPU also
for the choice of outlier columns, which bitsandbytes makes per batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

STEPS = 8
"""Tokens between two looks at whether an answer's text says that it has ended."""
KEEP_FINISHED = 1 / 8
"""Share of finished rows in a batch that is put up with: taking rows out costs about as much as one token."""


@dataclass(frozen=True)
class Decoding:
    """How answers are made."""

    batch_size: int
    max_new_tokens: int
    stop: frozenset[int]
    """Tokens that end an answer; they are part of it."""
    pad: int
    """Any id: padding is masked."""
    ended: Callable[[list[int]], bool] | None = None
    """Whether an answer is complete by what its tokens say together. Asked now and then: an answer may be longer."""


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    done: Callable[[int], None] = lambda count: None,
) -> list[list[int]]:
    """The most likely next token, again and again, for every prompt.

    Args:
        prompts: token ids, at least one per prompt.
        done: called with the number of further prompts answered.

    Returns:
        New tokens by prompt, up to and including the first stop token.
    """
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    with torch.inference_mode():
        for start in range(0, len(order), decoding.batch_size):
            rows = order[start : start + decoding.batch_size]
            for row, answer in zip(rows, _answer(model, [prompts[row] for row in rows], decoding), strict=True):
                answers[row] = answer
            done(len(rows))
    return answers


def _answer(model: PreTrainedModel, prompts: list[Sequence[int]], decoding: Decoding) -> list[list[int]]:
    """Answer one batch."""
    import torch

    from tasks.generation.cache import reserve

    device = model.get_input_embeddings().weight.device
    ids, mask = _padded(prompts, decoding, device)
    stop = torch.tensor(sorted(decoding.stop), device=device)
    width = ids.shape[1]
    cache = reserve(model, mask.shape[1])
    positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=device)
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(decoding.max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask[:, : width + step],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
        for row, token, runs in zip(rows.tolist(), ids[:, 0].tolist(), running.tolist(), strict=True):
            if runs:
                answers[row].append(token)
        running &= ~torch.isin(ids[:, 0], stop)
        if decoding.ended and step % STEPS == STEPS - 1:
            ended = [decoding.ended(answers[row]) for row in rows.tolist()]
            running &= ~torch.tensor(ended, device=device)
        left = int(running.sum())
        if not left:
            break
        if left <= (1 - KEEP_FINISHED) * len(rows):
            keep = running.nonzero()[:, 0]
            ids, mask, positions, rows = ids[keep], mask[keep], positions[keep], rows[keep]
            running = running[keep]
            cache.batch_select_indices(keep)
        positions = positions[:, -1:] + 1
    return answers


def _padded(
    prompts: list[Sequence[int]], decoding: Decoding, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows × longest) padded on the left; mask (rows × longest + new), 1 for what may be looked at."""
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), decoding.pad)
    mask = torch.ones((len(prompts), width + decoding.max_new_tokens), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, : width - len(prompt)] = 0
    return ids.to(device), mask.to(device)
