"""Training a LoRA adapter on a frozen, quantized base model, in a supervised process of its own."""

from artifacts.schema import Checkpoint
from tasks.running.stage import Stage
from tasks.training.config import LoraSettings, TrainingConfig
from tasks.training.stage import run_training
from tasks.training.view import sections

__all__ = ["STAGE", "LoraSettings", "TrainingConfig", "run_training", "sections"]

STAGE = Stage(name="training", version=1, run=run_training, produces=Checkpoint, sections=sections, keeps_workdir=True)
