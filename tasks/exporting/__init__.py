"""The trained model in the forms that others load: adapter and merged weights, checked before they are published."""

from artifacts.schema import ExportedModel
from tasks.exporting.config import ExportingConfig
from tasks.exporting.stage import run_exporting
from tasks.exporting.view import sections
from tasks.running.stage import Stage

STAGE = Stage(name="exporting", version=5, run=run_exporting, produces=ExportedModel, sections=sections, leaves=True)

__all__ = ["STAGE", "ExportingConfig", "run_exporting", "sections"]
