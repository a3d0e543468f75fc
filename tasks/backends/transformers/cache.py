"""Keys and values of one batch in memory set aside once. Imports torch: import it inside functions only."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


def reserve(model: PreTrainedModel, capacity: int) -> Cache:
    """A cache for `capacity` tokens per row. Models that do not attend to everything get transformers' own."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return DynamicCache(config=config)
    return Cache(layers=[_Reserved(capacity) for _ in range(config.num_hidden_layers)])


class _Reserved(DynamicLayer):  # type: ignore[misc]
    """Keys and values (rows × heads × tokens × width) as views into memory that is written in place.

    `DynamicLayer` of transformers copies all keys and values at every token. `StaticLayer` does not, but attends to
    all that it reserved, and cannot take rows out.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._memory: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if not self._memory:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, width = key_states.shape
            self._memory = [key_states.new_empty((rows, heads, self._capacity, width)) for _ in range(2)]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[:, :, start:end] = states
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._memory = [memory[indices] for memory in self._memory]
        self._show(self.get_seq_length())

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (memory[:, :, :end] for memory in self._memory)
        return self.keys, self.values
