"""Where an artifact comes from: what its key was made of, and the code and libraries that built it.

It stands in the manifest beside the contents and is no part of any fingerprint, so it may tell times and versions.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel

from artifacts.digest import Fingerprinted
from artifacts.errors import InputError
from artifacts.installation import PACKAGES
from artifacts.schema import Handle
from tasks import checkout

LIBRARIES = (
    *("accelerate", "bitsandbytes", "datasets", "huggingface-hub", "numpy", "peft", "prefect", "pyarrow", "pydantic"),
    *("safetensors", "tokenizers", "torch", "transformers", "triton", "trl"),
)
"""Those that decide bytes, or whether something loads."""


def of(parts: Mapping[str, Any], inputs: Mapping[str, Fingerprinted], seconds: float) -> dict[str, Any]:
    """The provenance of an artifact that was just built.

    Args:
        parts: what its key was made of.
        seconds: how long it took.
    """
    return {
        "key_parts": parts,
        "inputs": {name: described(value) for name, value in inputs.items()},
        "code": dict(code()),
        "libraries": dict(libraries()),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": seconds,
    }


def described(value: Fingerprinted) -> dict[str, Any]:
    """An input for later questions: where an artifact lies, or what a record says."""
    if isinstance(value, Handle):
        return {"place": value.place}
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else {}


@cache
def code() -> dict[str, Any]:
    """This code: the package's version and, in a git working tree, the commit and whether files differ from it."""
    commit = ""
    with suppress(checkout.Refused, InputError):
        if checkout.top_of(PACKAGES) == PACKAGES and (read := checkout.read(PACKAGES)):
            commit = read.commit
    return {
        "version": version("codetune"),
        "commit": commit.removesuffix("-dirty") or None,
        "modified": commit.endswith("-dirty") if commit else None,
    }


@cache
def libraries() -> dict[str, str]:
    """Versions of the interpreter and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
