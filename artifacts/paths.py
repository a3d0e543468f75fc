"""Paths that a person gives, as settings or on the command line: what is known of them before anything is opened."""

from __future__ import annotations

import os
from pathlib import Path

from artifacts.errors import InputError

_LONGEST_NAME = 255
"""Bytes that Linux allows between two slashes."""
_LONGEST_PATH = 4095


def check(text: str) -> str:
    """The path as it was given.

    Raises:
        ValueError: no file can have that name, its `~` stands for a user who is not known here, or it leads nowhere.
    """
    if not text.strip():
        raise ValueError("an empty path names no file; the current folder is `.`")
    if "\0" in text:
        raise ValueError("no path has a NUL character in it")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)} is not UTF-8; rename the file, or link to it by another name") from None
    if len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in encoded.split(b"/")):
        raise ValueError(
            f"{shown(text)} is too long: a name has at most {_LONGEST_NAME} bytes, a path {_LONGEST_PATH:,}"
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user {shown(text.split('/')[0])} on this machine") from None
    try:
        path.resolve()
    except RuntimeError:  # before Python 3.13
        raise ValueError(f"{shown(text)} is a link that leads back to itself") from None
    return text


def expanded(text: str | Path, field: str) -> Path:
    """The path with `~` as the home folder.

    Raises:
        InputError: no file can have that name.
    """
    try:
        return Path(check(str(text))).expanduser()
    except ValueError as error:
        raise InputError(str(error), field=field, remedy="check the path") from None


def shown(text: str, longest: int = 80) -> str:
    """A value for a message: what cannot be printed escaped, the middle of a long one left out."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return escaped if len(escaped) <= longest else f"{escaped[: longest // 2]}…{escaped[-longest // 4 :]}"


def real(path: Path) -> Path:
    """A path without links. Unlike `Path.resolve`, a loop of links is no error here: what opens it says so."""
    return Path(os.path.realpath(path))
