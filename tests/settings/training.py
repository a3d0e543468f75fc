"""Training: a few steps on the small model, planned for this job as preflight plans it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import torch

from artifacts.schema import TokenizedDataset
from flows.config import PipelineConfig
from tasks.preflight.judgement import judge
from tasks.preflight.shape import read_shape
from tasks.training import run
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
    build, threads, workdir = run.build_trainer, torch.get_num_threads(), lab.folder()

    def building(*arguments: Any) -> Any:
        trainers.append(build(*arguments))
        return trainers[0]

    try:
        with patch.object(run, "build_trainer", building):
            made = jobs.train_here(workdir, lab.once(tokens), config.training, plan)
        computing = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
    optimizer = trainers[0].optimizer.optimizer
    settings = json.loads((workdir / "result" / "adapter" / "adapter_config.json").read_text())
    weights = sorted(made.adapter.items())
    return {
        **{name: made.metrics[name] for name in ("loss", "learning_rate", "grad_norm", "tokens")},
        "weights": sha256(b"".join(weight.numpy().tobytes() for _, weight in weights)).hexdigest(),
        "shapes": {name: tuple(weight.shape) for name, weight in weights},
        "adapter": {name: settings[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules")},
        "optimizer": (
            type(optimizer).__name__,
            optimizer.defaults.get("fused"),
            optimizer.param_groups[0]["weight_decay"],
        ),
        "dtypes": sorted({str(weight.dtype) for weight in trainers[0].model.state_dict().values()}),
        "clipped to": trainers[0].args.max_grad_norm,
        "threads": computing,
    }


GIVEN = {
    "preflight.device": "cpu",
    "training.quantization": "none",
    "training.max_steps": 3,
    "training.warmup_steps": 1,
    "training.learning_rate": 5e-3,
    "training.cpu_threads": 1,
}


def row(first: Any, second: Any, *apart: str, **given: Any) -> Row:
    settings = GIVEN | {f"training.{name}": value for name, value in given.items()}
    return Row(first, second, look_training, settings, apart=frozenset(apart) or None)


ROWS = {
    f"training.{name}": made
    for name, made in {
        "quantization": row("none", "int8"),
        "lora.r": row(8, 4),
        "lora.alpha": row(16, 32),
        "lora.dropout": row(0.0, 0.5),
        "lora.target_modules": row(["q_proj", "v_proj"], ["q_proj"]),
        "effective_batch": row(4, 2),
        "learning_rate": row(5e-3, 1e-3),
        "max_steps": row(3, 2),
        "warmup_steps": row(1, 2),
        "scheduler": row("linear", "constant_with_warmup"),
        "optimizer": row("adamw_torch_fused", "adamw_torch"),
        "weight_decay": row(0.0, 0.5),
        "max_grad_norm": row(1.0, 1e-3),
        "seed": row(42, 43),
        "cpu_threads": row(1, 2),
    }.items()
}
