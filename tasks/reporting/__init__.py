"""Reporting: one self-contained HTML page about a run, made of what every stage has to show.

verdict      the outcome in a sentence, and the key figures
comparison   sample completions with their differences marked
chapters     what stands where on the page
page         blocks → HTML; everything from outside is escaped
"""

from artifacts.schema import RunReport
from tasks.reporting.stage import ReportingConfig, run_reporting, sections
from tasks.running.stage import Stage

STAGE = Stage(name="reporting", version=9, run=run_reporting, produces=RunReport, sections=sections, needs_card=False)

__all__ = ["STAGE", "ReportingConfig", "run_reporting", "sections"]
