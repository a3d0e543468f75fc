"""Reporting: one self-contained HTML page about a run, made of what every stage has to show.

verdict      the outcome in a sentence, and the key figures
comparison   sample completions with their differences marked
chapters     what stands where on the page
page         blocks → HTML; everything from outside is escaped
"""

from tasks.reporting.config import ReportingConfig
from tasks.reporting.stage import STAGE, run_reporting

__all__ = ["STAGE", "ReportingConfig", "run_reporting"]
