"""What can be set of the report."""

from __future__ import annotations

from artifacts.configuration import Config, Name


class ReportingConfig(Config):
    """The report."""

    title: Name = "codetune report"
    """Stands above the verdict and in the browser's tab."""
