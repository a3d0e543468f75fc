"""Recording a micro-batch, as far as that shows without a GPU."""

from __future__ import annotations

import torch

from tasks.backends.fused.capture import MicroBatch, _shortage
from tasks.backends.fused.model import FusedModel
from tests.tasks.backends.fused import models


def test_lack_of_memory_is_found_behind_the_error_of_the_broken_recording() -> None:
    shortage = torch.OutOfMemoryError("CUDA out of memory")
    try:
        try:
            raise shortage
        finally:
            raise RuntimeError("capturing stream has unjoined work")
    except RuntimeError as error:
        assert _shortage(error) is shortage
    assert _shortage(RuntimeError("operation not permitted when stream is capturing")) is None


def test_other_shapes_and_other_devices_run_kernel_by_kernel() -> None:
    model = models.tiny("none")
    ids, labels = models.texts(model)
    fused = FusedModel(model, length=ids.shape[1])
    batch = MicroBatch(fused, (ids.shape[0], ids.shape[1]))
    whole = float(batch.run(ids, labels, torch.tensor(1.0)))
    parts = sum(float(batch.run(ids[row : row + 1], labels[row : row + 1], torch.tensor(1.0))) for row in range(3))
    assert batch.captured == (models.DEVICE == "cuda")
    assert abs(whole - parts) < 1e-3 * whole
