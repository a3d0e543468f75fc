"""Greedy answers to many prompts, with and without the adapter, on the weights that the engine trains on.

As many prompts as there are slots are answered at a time (`slots`). A finished one makes room for the next prompt, so
that a long answer does not hold the others up and the GPU computes nothing for finished ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tasks.backends.contract import Decoding
from tasks.backends.fused import inference
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.model import unsupported as unknown
from tasks.backends.fused.slots import DecodingStep, Slots
from tasks.models.healing import restricted

Tensor = torch.Tensor

PIECE = 4096
"""Most tokens of prompts computed at once, padding included; a longer prompt is computed alone."""
STEPS = 8
"""Tokens between two looks at what has finished: looking waits for the GPU."""
REFILL = 1 / 4
"""Share of free slots from which on prompts are put in: their weights are unpacked once for all of them."""
ALIGNED = 8
"""Positions of the cache are a multiple of this."""


def unsupported(model: Any, length: int | None = None) -> str | None:
    """Why the decoder cannot run a model (a transformers model, or PEFT's around one); None when it can."""
    for name in model.active_adapters if hasattr(model, "peft_config") else []:
        config = model.peft_config[name]
        if getattr(config, "use_dora", False) or getattr(config, "modules_to_save", None):
            return "its adapter is more than pairs of low-rank factors"
    return unknown(model, length)


class Decoder:
    """A model and its adapter as they are when this is made.

    Args:
        model: PEFT's model, or the transformers model alone.
        length: the longest text in tokens, answer included.

    Raises:
        ValueError: `unsupported` says why.
    """

    def __init__(self, model: Any, length: int) -> None:
        reason = unsupported(model, length)
        if reason:
            raise ValueError(reason)
        self._length = length
        with torch.no_grad():
            self.model = FusedModel(model, length=length)
        self._slots: Slots | None = None
        self._steps: dict[bool, DecodingStep] = {}
        self._key: object = None

    @property
    def captured(self) -> bool:
        """Whether all steps so far were CUDA graphs."""
        return bool(self._steps) and all(step.captured for step in self._steps.values())

    def losses(self, ids: Tensor, labels: Tensor, *, adapted: bool) -> Tensor:
        """As `inference.losses`."""
        self._check(ids.shape[1])
        device = self.model.embedding.device
        return inference.losses(self.model, ids.to(device), labels.to(device), adapted=adapted)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        adapted: bool,
        done: Callable[[int], None] = lambda count: None,
    ) -> list[list[int]]:
        """The most likely next token, again and again, for every prompt.

        Args:
            prompts: token ids, at least one per prompt.
            adapted: whether the adapter takes part.
            done: called with the number of further prompts answered.

        Returns:
            New tokens by prompt, up to and including the first stop token.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        if not prompts:
            return answers
        slots = self._prepare(prompts, decoding)
        # the longest first: those that begin together are of like length
        waiting = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        owners: dict[int, int] = {}
        while waiting or owners:
            free = [slot for slot in range(slots.tokens.shape[0]) if slot not in owners]
            if waiting and len(free) >= REFILL * slots.tokens.shape[0]:
                new = dict(zip(free, waiting, strict=False))
                waiting = waiting[len(new) :]
                first = {slot: decoding.first[index] for slot, index in new.items()} if decoding.first else {}
                self._fill(slots, {slot: prompts[index] for slot, index in new.items()}, first, adapted)
                owners |= new
            if adapted not in self._steps:
                self._steps[adapted] = DecodingStep(self.model, slots, adapted=adapted)
            for _ in range(min(STEPS, slots.limit)):
                self._steps[adapted].run()
            if decoding.ended:
                counts, texts = slots.counts.tolist(), slots.answers.tolist()
                slots.running[[slot for slot in owners if decoding.ended(texts[slot][: counts[slot]])]] = False
            finished = _collect(slots, owners, answers)
            if finished:
                done(finished)
        return answers

    def release(self) -> None:
        """Give back the memory of slots and graphs."""
        self._slots, self._steps, self._key = None, {}, None

    def _prepare(self, prompts: Sequence[Sequence[int]], decoding: Decoding) -> Slots:
        """Slots for these prompts: those there are, where they are of the right kind and large enough."""
        longest = max(map(len, prompts)) + decoding.max_new_tokens
        self._check(longest)
        rows = min(decoding.batch_size, len(prompts))
        key = (rows, decoding.max_new_tokens, decoding.stop)
        if self._slots is None or self._key != key or self._slots.capacity < longest:
            self.release()
            capacity = -(-longest // ALIGNED) * ALIGNED
            self._slots = Slots(self.model, rows, capacity, decoding.max_new_tokens, sorted(decoding.stop))
            self._key = key
        return self._slots

    def _check(self, length: int) -> None:
        if length > self._length:
            raise ValueError(f"a text of {length} tokens, where {self._length} were said to be the most")

    def _fill(
        self, slots: Slots, prompts: dict[int, Sequence[int]], first: dict[int, Sequence[int]], adapted: bool
    ) -> None:
        """Prompts by slot: their keys and values into the cache, and the first token of each answer."""
        for piece in _pieces(prompts):
            device = self.model.embedding.device
            lengths = torch.tensor([len(prompts[slot]) for slot in piece], device=device)
            width = len(prompts[piece[0]])
            ids = torch.tensor([[*prompts[slot], *[0] * (width - len(prompts[slot]))] for slot in piece], device=device)
            rows = torch.tensor(piece, device=device)
            allowed = [first.get(slot, ()) for slot in piece]
            logits = restricted(self._read(slots, ids, rows, lengths, adapted), allowed)
            slots.begin(rows, lengths, logits.argmax(-1), torch.tensor([not some for some in allowed], device=device))

    def _read(self, slots: Slots, ids: Tensor, rows: Tensor, lengths: Tensor, adapted: bool) -> Tensor:
        """The logits after each prompt (sequences × tokens, `lengths` of them text), which goes into `rows` of the
        cache."""
        shape = (ids.shape[0], ids.shape[1])
        geometry = self.model.geometry

        def attend(number: int, qkv: Tensor) -> Tensor:
            out = inference.attention(geometry, qkv, shape)
            cache = slots.cache[number]
            cache[rows, : shape[1]] = inference.written(geometry, qkv).view(*shape, *cache.shape[2:])
            return out

        made, residual = inference.stream(self.model, ids.flatten(), inference.unpacking(adapted), attend)
        last = torch.arange(shape[0], device=ids.device) * shape[1] + lengths - 1
        return inference.logits(self.model, made[last], residual[last])


def _pieces(prompts: dict[int, Sequence[int]]) -> Iterator[list[int]]:
    """Slots whose prompts are computed at once, the longest first."""
    order = sorted(prompts, key=lambda slot: (-len(prompts[slot]), slot))
    while order:
        size = max(1, PIECE // len(prompts[order[0]]))
        yield order[:size]
        order = order[size:]


def _collect(slots: Slots, owners: dict[int, int], answers: list[list[int]]) -> int:
    """Take finished answers out of their slots; how many there were."""
    running = slots.running.tolist()
    finished = [slot for slot in owners if not running[slot]]
    if finished:
        counts, texts = slots.counts.tolist(), slots.answers[finished].tolist()
        for slot, text in zip(finished, texts, strict=True):
            answers[owners.pop(slot)] = text[: counts[slot]]
    return len(finished)
