"""Prefect takes no settings from the current folder, which holds whatever it holds.

It would read `.env`, `prefect.toml` and `pyproject.toml` there and go by them before a person's own profile: a setting
may name the server that is told everything, or a file that says what is run. The project's own come by the environment
(`flows.environment`). Done where Prefect is imported, so that it holds for every process of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

_SOURCES, _CLASSES = "prefect.settings.sources", "prefect.settings.base"


class _Settings(MetaPathFinder):
    """Finds a module that has them read, once, and mends it as soon as it is loaded."""

    def __init__(self, name: str, mend: Callable[[Any], None]) -> None:
        self._name, self._mend = name, mend

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        found = find_spec(name)
        if found and found.loader:
            load = found.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                self._mend(module)

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def _leave_out(sources: Any) -> None:
    sources.TomlConfigSettingsSourceBase._read_files = _nothing
    sources.FilteredDotEnvSettingsSource._read_env_files = _nothing
    sources.dotenv = SimpleNamespace(dotenv_values=_nothing)
    sources._get_profiles_path_from_toml = _nothing


def _name_no_file(classes: Any) -> None:
    """Pydantic reads `.env` before Prefect says that it goes by nothing in it: a FIFO would never let go."""
    classes.PrefectSettingsConfigDict = lambda **settings: {**settings, "env_file": None}


def _nothing(*_: object, **__: object) -> dict[str, Any]:
    return {}


def leave_out() -> None:
    """From now on, if Prefect was not imported yet."""
    if _SOURCES not in sys.modules:
        sys.meta_path[:0] = [_Settings(_SOURCES, _leave_out), _Settings(_CLASSES, _name_no_file)]
