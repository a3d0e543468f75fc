"""The settings of Prefect and of the libraries that a run wants, as defaults below the person's own."""

from __future__ import annotations

import gc
import logging
import os
import tomllib
from typing import Any

from artifacts import garbage, private
from artifacts.installation import PROJECT
from artifacts.redaction import redact_logs

LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "true",  # unset, tokenizers warns whenever a process is started after its first use
    # Threads that spin while they wait slow each other down on a busy machine: three runs at once on two cores take
    # half the time with this, one alone 3 % more. Read when torch loads its OpenMP library.
    "GOMP_SPINCOUNT": "5000",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # a nearly full card cannot afford fragments
}

_COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps code that it compiles and runs. Unset, others can make it first, in the temporary folder."""


def apply(*, quiet: bool) -> None:
    """Set what is not set. Call before Prefect is imported: it reads its settings then. From now on garbage is
    collected seldom.

    Args:
        quiet: keep Prefect's own records of a run out of the terminal; the dashboard has them.
    """
    defaults = dict(LIBRARIES)
    defaults |= _flatten(tomllib.loads((PROJECT / "prefect.toml").read_text(encoding="utf-8")))
    if quiet:
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if _COMPILED not in os.environ:
        os.environ[_COMPILED] = str(private.cache_folder("inductor"))
    gc.set_threshold(*garbage.SELDOM)
    redact_logs()
    for package in (
        "artifacts",
        "tasks",
        "flows",
    ):  # Prefect hands on what they let through
        logging.getLogger(package).setLevel(logging.INFO)


def _flatten(table: dict[str, Any], prefix: str = "PREFECT") -> dict[str, str]:
    """`prefect.toml` as Prefect's environment variables: `[logging] level` is `PREFECT_LOGGING_LEVEL`."""
    settings: dict[str, str] = {}
    for name, value in table.items():
        variable = f"{prefix}_{name.upper()}"
        if isinstance(value, dict):
            settings |= _flatten(value, variable)
        else:
            settings[variable] = ",".join(value) if isinstance(value, list) else str(value).lower()
    return settings
