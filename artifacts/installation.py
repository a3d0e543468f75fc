"""Where the files of this project are that are no Python: `prefect.yaml`, `prefect.toml`, the built-in model.

In a checkout they are at its top; a wheel carries them in `artifacts/project/` (pyproject.toml, `force-include`).
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_TOP = Path(__file__).resolve().parents[1]

IS_CHECKOUT = (_TOP / "prefect.yaml").exists()
"""Whether this code runs from its working tree and not from an installed wheel."""
PROJECT = _TOP if IS_CHECKOUT else _TOP / "artifacts" / "project"
"""The folder of `prefect.yaml`, `prefect.toml` and `models/`."""
PACKAGES = _TOP
"""The folder from which `artifacts`, `tasks` and `flows` are imported."""


def safe(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a Python process that imports this project from where it is installed, and nothing from the
    current folder, which Python would look at first: there any `secrets.py` would be run, any `tasks.py` taken for
    ours. Not by `-P` alone, which the processes below do not inherit."""
    found = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    library = sysconfig.get_path("stdlib")
    installed = sys.path[sys.path.index(library) :] if library in sys.path else []
    if str(PACKAGES) not in installed:  # an installed one is found without, and comes after the standard library
        found.insert(0, str(PACKAGES))
    path = {"PYTHONPATH": os.pathsep.join(found)} if found else {}
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"} | path | {"PYTHONSAFEPATH": "1"}


def home() -> Path:
    """The folder that deployed runs start in, and so where a relative CODETUNE_STORE is: the checkout, or the current
    folder where codetune is installed from a wheel."""
    return PROJECT if IS_CHECKOUT else Path.cwd()
