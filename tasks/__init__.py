"""Verbs: one module or package per stage, and the few things that stages share."""

import artifacts  # noqa: F401 - before Prefect reads its settings
