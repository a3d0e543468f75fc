"""The fused engine inside transformers' Trainer: it takes the place of one micro-batch's forward and backward pass,
so that optimizer, scheduler, clipping, scaler, callbacks and checkpoints stay what they are. Imports torch."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import pad

from artifacts.schema import Plan
from tasks.backends.fused import inference
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.ops import IGNORED
from tasks.processes import ranks

log = logging.getLogger(__name__)


class FusedSteps:
    """Computes micro-batches. Set up at the first one: by then a checkpoint's weights are in the model."""

    def __init__(self, plan: Plan, layers: int, *, packed: bool = False) -> None:
        checkpointed = layers if plan.checkpointed_layers is None else plan.checkpointed_layers
        self._checkpointed = checkpointed if plan.gradient_checkpointing else 0
        self._resident = plan.resident_layers
        self._products = plan.products
        self._sequences, self._packed = plan.micro_batch, packed
        self._micro_batch: MicroBatch | None = None
        self._fused: FusedModel | None = None

    def step(self, model: Any, inputs: dict[str, Any], items: Any, scaler: Any, *, last: bool) -> torch.Tensor:
        """The micro-batch's part of the step's mean loss; its gradients, scaled, are added to the adapter's.

        Of several processes each has its own micro-batches; after the last of a step all have the sum of all gradients.
        As with transformers' own losses it is the mean over the processes that is the whole step's.

        Args:
            inputs: `input_ids`, `labels` and, where texts are packed, `position_ids`: sequences × tokens.
            items: tokens that count in the whole optimizer step.
            scaler: accelerate's gradient scaler; None where fp16 is not computed in.
            last: the micro-batch is the last of its optimizer step.
        """
        ids, labels = inputs["input_ids"], inputs["labels"]
        if self._micro_batch is None:
            self._micro_batch = self._prepare(model, (ids.shape[0], ids.shape[1]))
        device = next(model.parameters()).device
        share = 1 / torch.as_tensor(items, dtype=torch.float32).to(device, non_blocking=True)
        factor = share if scaler is None else scaler.scale(share)
        loss = self._micro_batch.run(ids, labels, factor, inputs["position_ids"] if self._packed else None)
        if last and ranks.count() > 1:
            assert self._fused is not None
            dist.all_reduce(self._fused.adapters.grads)  # one buffer holds them all
        return loss * share * ranks.count()

    def loss(self, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of the labels that count, in nats: the forward pass alone, launched kernel by kernel, which
        needs no memory that the graph of the steps holds."""
        if self._micro_batch is None:
            self._micro_batch = self._prepare(model, (self._sequences, ids.shape[1]))
        assert self._fused is not None
        device = self._fused.embedding.device
        following = pad(labels[:, 1:], (0, 1), value=IGNORED)
        self._fused.adapters.refresh()
        losses = inference.losses(self._fused, ids.to(device), following.to(device), adapted=True)
        self._fused.join()  # what was unpacked ahead for a backward pass that does not come
        return losses.double().sum()

    def _prepare(self, model: Any, shape: tuple[int, int]) -> MicroBatch:
        model.train()  # decides about dropout
        fused = FusedModel(
            model,
            checkpointed=self._checkpointed,
            resident=self._resident,
            length=shape[1],
            products=self._products,
        )
        if self._products == "int8":
            calibrate(fused)
        self._fused = fused
        if ranks.count() > 1:
            dist.broadcast(fused.adapters.masters, src=0)
        # Gradients stay where they are, since the graph writes there.
        model.zero_grad = lambda set_to_none=True: fused.adapters.clear()
        micro_batch = MicroBatch(fused, shape, packed=self._packed)
        fused.adapters.clear()
        how = "as one CUDA graph" if micro_batch.captured else "kernel by kernel"
        log.info("backend fused: %d × %d tokens %s, products in %s", *shape, how, self._products)
        return micro_batch
