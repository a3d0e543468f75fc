"""Sentences: the flows, the pipeline's configuration, recipes and the command line."""

import artifacts  # noqa: F401 - before Prefect reads its settings
