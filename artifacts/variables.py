"""Numbers in environment variables."""

from __future__ import annotations

import os

from artifacts.errors import InputError
from artifacts.paths import shown


def number(name: str, *, most: float) -> float | None:
    """A number above 0; None where the variable is not set or empty.

    Raises:
        InputError: it is none, or beyond `most`.
    """
    text = os.environ.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise InputError(
            f"{shown(repr(text))} is no number above 0 and up to {most:,.0f}", field=name, remedy="correct or unset it"
        )
    return value
