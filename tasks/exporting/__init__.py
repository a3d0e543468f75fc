"""The trained model in the forms that others load: adapter and merged weights, checked before they are published."""

from tasks.exporting.config import ExportingConfig
from tasks.exporting.stage import STAGE, run_exporting

__all__ = ["STAGE", "ExportingConfig", "run_exporting"]
