"""Where the files of this project are that are no Python: `prefect.yaml`, `prefect.toml`, the built-in model.

In a checkout they are at its top; a wheel carries them in `artifacts/project/` (pyproject.toml, `force-include`).
"""

from __future__ import annotations

from pathlib import Path

_TOP = Path(__file__).resolve().parents[1]

IS_CHECKOUT = (_TOP / "prefect.yaml").exists()
"""Whether this code runs from its working tree and not from an installed wheel."""
PROJECT = _TOP if IS_CHECKOUT else _TOP / "artifacts" / "project"
"""The folder of `prefect.yaml`, `prefect.toml` and `models/`."""
PACKAGES = _TOP
"""The folder from which `artifacts`, `tasks` and `flows` are imported."""


def home() -> Path:
    """The folder that deployed runs start in, and so where a relative CODETUNE_STORE is: the checkout, or the current
    folder where codetune is installed from a wheel."""
    return PROJECT if IS_CHECKOUT else Path.cwd()
