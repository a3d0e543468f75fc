"""The trained model in the forms that others load: adapter, merged weights, GGUF, checked before they are published."""

from tasks.exporting.config import ExportingConfig
from tasks.exporting.stage import STAGE, run_exporting

__all__ = ["STAGE", "ExportingConfig", "run_exporting"]
