"""Training: a few steps on the small model, planned for this job as preflight plans it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import torch

from artifacts.schema import TokenizedDataset
from flows.config import PipelineConfig
from tasks.models.shape import read_shape
from tasks.preflight.judgement import judge
from tasks.training import job
from tests.conftest import SMALL_MODEL
from tests.settings.table import Lab, Row
from tests.tasks.preflight.machines import machine
from tests.tasks.training import jobs


def tokens(lab: Lab) -> TokenizedDataset:
    return jobs.dataset(lab.folder(), jobs.rows())


def look_training(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """What every step measured, and what the training ended with."""
    shape = read_shape(SMALL_MODEL)
    plan = judge(config.preflight, config.job(), shape, machine(), download=False).plan
    trainers: list[Any] = []
    first: dict[str, str] = {}
    build, threads, workdir = job.build_trainer, torch.get_num_threads(), lab.folder()

    def building(*arguments: Any) -> Any:
        trainers.append(build(*arguments))
        first.update(digest(trainers[0].model.state_dict()))
        return trainers[0]

    try:
        with patch.object(job, "build_trainer", building):
            made = jobs.train_here(workdir, lab.once(tokens), config.training, plan)
        computing = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
    optimizer = trainers[0].optimizer.optimizer
    settings = json.loads((workdir / "result" / "adapter" / "adapter_config.json").read_text())
    args = trainers[0].args
    return {
        **{name: made.metrics[name] for name in ("loss", "learning_rate", "grad_norm", "tokens")},
        "validated": made.metrics.get("validation_loss"),
        "aside": made.validation and made.validation["sequences"],
        "kept": made.validation and made.validation["kept_step"],
        "first weights": first,
        "weights": digest(made.adapter),
        "shapes": {name: tuple(weight.shape) for name, weight in made.adapter.items()},
        "sequences": args.per_device_train_batch_size * args.gradient_accumulation_steps,
        "adapter": {name: settings[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules")},
        "optimizer": (
            type(optimizer).__name__,
            optimizer.defaults.get("fused"),
            optimizer.param_groups[0]["weight_decay"],
        ),
        "dtypes": sorted({str(weight.dtype) for weight in trainers[0].model.state_dict().values()}),
        "clipped to": args.max_grad_norm,
        "threads": computing,
    }


def digest(weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Of an adapter's weights, by name."""
    return {name: sha256(weight.numpy().tobytes()).hexdigest() for name, weight in weights.items() if "lora_" in name}


GIVEN = {
    "preflight.device": "cpu",
    "training.quantization": "none",
    "training.max_steps": 3,
    "training.warmup_steps": 1,
    "training.learning_rate": 5e-3,
    "training.cpu_threads": 1,
}


def row(first: Any, second: Any, *least: str, backend: str = "transformers") -> Row:
    return Row(first, second, look_training, GIVEN | {"training.backend": backend}, least=frozenset(least))


EPOCHS = {name: value for name, value in GIVEN.items() if name != "training.max_steps"}


RUIN = GIVEN | {
    "training.learning_rate": 1.0,
    "training.max_steps": 6,
    "training.validation": {"share": 0.25, "steps": 1},
}
"""Training that soon makes the model worse."""


def validated(first: Any, second: Any, *least: str) -> Row:
    return Row(first, second, look_training, RUIN, least=frozenset(least))


def fused(first: Any, second: Any, *least: str) -> Row:
    """For what the backend `fused` does in its own way."""
    return row(first, second, *least, backend="fused")


ROWS = {
    f"training.{name}": made
    for name, made in {
        "quantization": row("none", "int8", "dtypes", "loss"),
        "lora.r": row(8, 4, "shapes", "adapter"),
        "lora.alpha": row(16, 32, "adapter", "weights"),
        "lora.dropout": row(0.0, 0.5, "adapter", "weights"),
        "lora.target_modules": row(["q_proj", "v_proj"], ["q_proj"], "shapes", "adapter"),
        "effective_batch": row(4, 2, "sequences", "tokens"),
        "learning_rate": row(5e-3, 1e-3, "learning_rate", "weights"),
        "max_steps": row(3, 2, "loss"),
        "epochs": Row(0.5, 0.75, look_training, EPOCHS, least=frozenset({"loss"})),
        "warmup_steps": row(1, 2, "learning_rate", "weights"),
        "scheduler": row("linear", "constant_with_warmup", "learning_rate", "weights"),
        "optimizer": row("adamw_torch_fused", "adamw_torch", "optimizer"),
        "weight_decay": row(0.0, 0.5, "optimizer", "weights"),
        "max_grad_norm": row(1.0, 1e-3, "weights"),
        "packing": row(False, True, "tokens"),
        "packing (fused)": fused(False, True, "tokens"),
        "validation": row(None, {"share": 0.25, "steps": 1}, "validated", "aside", "tokens"),
        "validation.share": validated(0.25, 0.1, "aside", "tokens"),
        "validation.sequences": validated(64, 2, "aside", "tokens"),
        "validation.steps": validated(1, 2, "validated"),
        "validation.patience": validated(None, 1, "loss"),
        "validation.keep": validated("best", "last", "kept", "weights"),
        "seed": row(42, 43, "first weights", "tokens"),
        "cpu_threads": row(1, 2, "threads"),
        "quantization (fused)": fused("none", "int8", "dtypes", "loss"),
        "lora.r (fused)": fused(8, 4, "shapes", "weights"),
        "lora.alpha (fused)": fused(16, 32, "weights"),
        "lora.dropout (fused)": fused(0.0, 0.5, "weights"),
        "lora.target_modules (fused)": fused(["q_proj", "v_proj"], ["q_proj"], "shapes"),
        "effective_batch (fused)": fused(4, 2, "sequences", "tokens"),
        "max_grad_norm (fused)": fused(1.0, 1e-3, "weights"),
    }.items()
}
