"""Greedy answers to many prompts at once.

Prompts of like length share a batch, padded on the left and masked by attention. A row that is finished leaves the
batch, so that one long answer does not keep the others computing, and where few are left, they wait to go on with the
few that other batches left: a step costs hardly less for one row than for many. Keys and values lie in memory set aside
once for the whole answer: `DynamicCache` of transformers copies all of them at every token.

An answer does not depend on which prompts share its batch, but for the last bits of the logits (for int8 on a GPU also
for the choice of outlier columns, which bitsandbytes makes per batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.backends.contract import Decoding

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

STEPS = 8
"""Tokens between two looks at whether an answer's text says that it has ended."""
KEEP_FINISHED = 1 / 8
"""Share of finished rows in a batch that is put up with: taking rows out costs about as much as one token."""

FEW = 1 / 4
"""Share of a batch that is put aside; what was computed of its rows' texts is computed once more, in one pass."""


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
    first = decoding.first or [()] * len(prompts)
    left = list(range(len(prompts)))
    with torch.inference_mode():
        while left:
            order = sorted(left, key=lambda row: (-len(prompts[row]) - len(answers[row]), row))
            batches = [order[at : at + decoding.batch_size] for at in range(0, len(order), decoding.batch_size)]
            few = int(decoding.batch_size * FEW) if len(batches) > 1 else 0
            left = []
            for rows in batches:
                begin = [() if answers[row] else first[row] for row in rows]
                running = _go_on(
                    model, [prompts[row] for row in rows], [answers[row] for row in rows], decoding, few, begin
                )
                left += [rows[index] for index in running]
                done(len(rows) - len(running))
    return answers


def _go_on(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    answers: list[list[int]],
    decoding: Decoding,
    few: int,
    first: Sequence[Sequence[int]],
) -> list[int]:
    """Lengthen the answers of one batch until no more than `few` are unfinished; returns which."""
    import torch

    from tasks.backends.transformers.cache import reserve
    from tasks.models.healing import restricted

    if len(prompts) <= few:
        return list(range(len(prompts)))
    device = model.get_input_embeddings().weight.device
    ids, mask = _padded([[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)], decoding, device)
    stop = torch.tensor(sorted(decoding.stop), device=device)
    width = ids.shape[1]
    cache = reserve(model, mask.shape[1])
    positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
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
        logits = output.logits[:, -1] if step else restricted(output.logits[:, -1], first)
        ids = logits.argmax(-1, keepdim=True)
        for row, token, runs in zip(rows.tolist(), ids[:, 0].tolist(), running.tolist(), strict=True):
            if runs:
                answers[row].append(token)
        stopped = torch.isin(ids[:, 0], stop)
        running &= ~stopped if step else ~stopped | torch.tensor([bool(some) for some in first], device=device)
        looks = decoding.ended if step % STEPS == STEPS - 1 else None
        over = [
            len(answers[row]) == decoding.max_new_tokens or (looks is not None and looks(answers[row]))
            for row in rows.tolist()
        ]
        running &= ~torch.tensor(over, device=device)
        left = int(running.sum())
        if left <= few:
            break
        if left <= (1 - KEEP_FINISHED) * len(rows):
            keep = running.nonzero()[:, 0]
            ids, mask, positions, rows = ids[keep], mask[keep], positions[keep], rows[keep]
            running = running[keep]
            cache.batch_select_indices(keep)
        positions = positions[:, -1:] + 1
    return [row for row, runs in zip(rows.tolist(), running.tolist(), strict=True) if runs]


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
