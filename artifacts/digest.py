"""Fingerprints: sha256 over JSON values, files and folders, equal on every machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol


class Fingerprinted(Protocol):
    """Something that a stage takes as input: equal fingerprints mean equal bytes."""

    @property
    def fingerprint(self) -> str: ...


def of_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces, no NaN)."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def of_list(values: Iterable[Any], *rest: Any) -> str:
    """`of_json([[*values], *rest])`, of more values than fit into memory."""
    digest = hashlib.sha256(b"[[")
    for number, value in enumerate(values):
        digest.update(b"," * (number > 0) + _canonical(value))
    digest.update(b"]")
    for value in rest:
        digest.update(b"," + _canonical(value))
    digest.update(b"]")
    return digest.hexdigest()


def of_file(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        OSError: it cannot be read, or is no regular file: of some there is no end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_files(root: Path, names: Iterable[str]) -> str:
    """Hex sha256 over the names (relative to `root`) and contents of some files, whatever their order."""
    return of_json({name: of_file(root / name) for name in names})


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode()
