"""Training a LoRA adapter on a frozen, quantized base model, in a supervised process of its own."""

from tasks.training.aside import of_one_file
from tasks.training.config import LoraSettings, TrainingConfig, ValidationSettings
from tasks.training.stage import STAGE, check_enough, learned_from, run_training

__all__ = [
    "STAGE",
    "LoraSettings",
    "TrainingConfig",
    "ValidationSettings",
    "check_enough",
    "learned_from",
    "of_one_file",
    "run_training",
]
