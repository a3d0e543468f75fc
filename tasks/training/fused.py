"""The fused engine inside transformers' Trainer: it takes the place of one micro-batch's forward and backward pass,
so that optimizer, scheduler, clipping, scaler, callbacks and checkpoints stay what they are. Imports torch."""

from __future__ import annotations

import logging
from typing import Any

import torch

from artifacts.schema import Plan
from tasks.engine.capture import MicroBatch
from tasks.engine.model import FusedModel

log = logging.getLogger(__name__)


class FusedEngine:
    """Computes micro-batches. Set up at the first one: by then a checkpoint's weights are in the model."""

    def __init__(self, plan: Plan, layers: int) -> None:
        recomputed = layers if plan.recomputed_layers is None else plan.recomputed_layers
        self._recomputed = recomputed if plan.gradient_checkpointing else 0
        self._unpacked = plan.unpacked_layers
        self._micro_batch: MicroBatch | None = None

    def step(self, model: Any, inputs: dict[str, Any], items: Any, scaler: Any) -> torch.Tensor:
        """The micro-batch's part of the step's mean loss; its gradients, scaled, are added to the adapter's.

        Args:
            inputs: `input_ids` and `labels`, sequences × tokens.
            items: tokens that count in the whole optimizer step.
            scaler: accelerate's gradient scaler; None where fp16 is not computed in.
        """
        ids, labels = inputs["input_ids"], inputs["labels"]
        if self._micro_batch is None:
            self._micro_batch = self._prepare(model, (ids.shape[0], ids.shape[1]))
        device = next(model.parameters()).device
        share = 1 / torch.as_tensor(items, dtype=torch.float32).to(device, non_blocking=True)
        loss = self._micro_batch.run(ids, labels, share if scaler is None else scaler.scale(share))
        return loss * share

    def _prepare(self, model: Any, shape: tuple[int, int]) -> MicroBatch:
        model.train()  # decides about dropout
        fused = FusedModel(model, recomputed=self._recomputed, unpacked=self._unpacked, length=shape[1])
        # Gradients stay where they are, since the graph writes there.
        model.zero_grad = lambda set_to_none=True: fused.adapters.clear()
        micro_batch = MicroBatch(fused, shape)
        fused.adapters.clear()
        how = "as one CUDA graph" if micro_batch.captured else "kernel by kernel"
        log.info("fused engine: %d × %d tokens %s", *shape, how)
        return micro_batch
