"""Training a LoRA adapter on a frozen, quantized base model, in a supervised process of its own."""

from artifacts.schema import Checkpoint
from tasks.stage import Stage
from tasks.training.configuration import LoraSettings, TrainingConfig
from tasks.training.show import sections
from tasks.training.stage import run_training

__all__ = ["STAGE", "LoraSettings", "TrainingConfig", "run_training", "sections"]

STAGE = Stage(name="training", version=1, run=run_training, produces=Checkpoint, sections=sections, keeps_workdir=True)
