"""What may be imported: the standard library, and the packages that are named, from where they are installed."""

from __future__ import annotations

import sys
from _frozen_importlib_external import spec_from_file_location  # `importlib.util` takes milliseconds to import
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def prepare(settings: dict[str, Any]) -> None:
    """Let this process import these, and write numbers of any length."""
    sys.path[:] = settings["path"]
    sys.meta_path.append(_Finder(settings["packages"]))
    sys.set_int_max_str_digits(0)


class _Finder:
    """Packages by name, without their neighbours."""

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = self._folders.get(name)
        if folder is None:
            return None
        return spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])
