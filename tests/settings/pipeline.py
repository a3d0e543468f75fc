"""The pipeline without its stages: which ones there are, what they are told, and what they take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from artifacts.schema import Plan, Prediction, PreflightReport
from artifacts.store import Store
from flows.config import PipelineConfig
from tasks.models.base_model import ModelReference
from tests.settings.table import Lab, Row
from tests.tasks.preflight.machines import TINY, model_folder

PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=4, gradient_checkpointing=False, backend="transformers"
)
SPEED = Prediction(peak_gib=1.0, tokens_per_second=1.0, seconds=1.0, disk_gib=0.1)


class Recorder:
    """Stands where a run would stand, and only takes down what its stages are given."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: dict[str, Any] = {}
        """The keyed settings, by stage."""
        self.taken: dict[str, list[str]] = {}
        """The names of the inputs, by stage."""

    def stage(self, stage: Any, config: Any, *, guard: Any = None, after: Any = None, **inputs: Any) -> Any:
        self.told[stage.name] = config.keyed()
        self.taken[stage.name] = sorted(name for name, value in inputs.items() if value is not None)
        cleared = PreflightReport(machine="", plan=PLAN, prediction=SPEED, checks=())
        return cleared if stage.name == "preflight" else SimpleNamespace(fingerprint=stage.name)


def model(lab: Lab) -> ModelReference:
    return model_folder(lab.folder() / "model", TINY)


def recorded(lab: Lab, config: PipelineConfig) -> Recorder:
    from flows.finetune import pipeline

    run = Recorder(cast(Store, None))
    pipeline(run, config, lab.once(model))
    return run


def look_stages(lab: Lab, config: PipelineConfig) -> dict[str, list[str]]:
    """What every stage takes."""
    return recorded(lab, config).taken


TAKING = frozenset({"retention", "retention-tokens", "prompts", "reporting"})
ROWS = {"retention": Row({}, None, look_stages, apart=TAKING)}
